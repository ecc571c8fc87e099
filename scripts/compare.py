"""The same as ``facenet compare``, for a clone."""

from facenet.commands.compare import main

if __name__ == "__main__":
    main()
