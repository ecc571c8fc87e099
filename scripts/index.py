"""Add embeddings to a gallery, remove items or people, choose its index, compact, export, show or check it."""

from facenet.commands.index import main

if __name__ == "__main__":
    main()
