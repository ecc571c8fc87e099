"""One self-contained HTML page from run folders and sweeps: report.html in this command's run folder."""

from facenet.commands.report import main

if __name__ == "__main__":
    main()
