"""The same as ``facenet tracks``, for a clone."""

from facenet.commands.tracks import main

if __name__ == "__main__":
    main()
