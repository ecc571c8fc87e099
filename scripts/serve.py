"""The same as ``facenet serve``, for a clone."""

from facenet.commands.serve import main

if __name__ == "__main__":
    main()
