"""The same as ``facenet report``, for a clone."""

from facenet.commands.report import main

if __name__ == "__main__":
    main()
