"""Embed a folder (or table) of images: vectors.npy, items.csv, meta.json."""

from facenet.commands.embed import main

if __name__ == "__main__":
    main()
