"""The same as ``facenet degrade``, for a clone."""

from facenet.commands.degrade import main

if __name__ == "__main__":
    main()
