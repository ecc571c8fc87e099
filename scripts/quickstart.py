"""The whole pipeline on drawn faces, each step a command a user would type; ends with one table."""

from facenet.commands.quickstart import main

if __name__ == "__main__":
    main()
