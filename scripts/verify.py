"""Verification of an encoder on LFW-style pairs in ten folds, or of an embeddings folder on all of its pairs."""

from facenet.commands.verify import main

if __name__ == "__main__":
    main()
