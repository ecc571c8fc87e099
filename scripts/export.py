"""The same as ``facenet export``, for a clone."""

from facenet.commands.export import main

if __name__ == "__main__":
    main()
