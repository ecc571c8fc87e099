"""The same as ``facenet summary``, for a clone."""

from facenet.commands.summary import main

if __name__ == "__main__":
    main()
