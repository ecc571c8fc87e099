"""One template for a video track: train TrackPool over an encoder, or score templates on tracks as they are."""

from facenet.commands.tracks import main

if __name__ == "__main__":
    main()
