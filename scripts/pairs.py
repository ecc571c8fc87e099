"""The same as ``facenet pairs``, for a clone."""

from facenet.commands.pairs import main

if __name__ == "__main__":
    main()
