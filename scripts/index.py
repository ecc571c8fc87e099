"""The same as ``facenet index``, for a clone."""

from facenet.commands.index import main

if __name__ == "__main__":
    main()
