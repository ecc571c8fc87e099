"""The same as ``facenet ijb``, for a clone."""

from facenet.commands.ijb import main

if __name__ == "__main__":
    main()
