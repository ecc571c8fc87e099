"""The same as ``facenet search``, for a clone."""

from facenet.commands.search import main

if __name__ == "__main__":
    main()
