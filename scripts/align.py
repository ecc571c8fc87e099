"""A folder of photos to a folder of aligned faces, a table of boxes and landmarks beside them."""

from facenet.commands.align import main

if __name__ == "__main__":
    main()
