"""The same as ``facenet import``, for a clone."""

from facenet.commands.import_weights import main

if __name__ == "__main__":
    main()
