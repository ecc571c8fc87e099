"""The same as ``facenet scan``, for a clone."""

from facenet.commands.scan import main

if __name__ == "__main__":
    main()
