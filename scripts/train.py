"""The same as ``facenet train``, for a clone."""

from facenet.commands.train import main

if __name__ == "__main__":
    main()
