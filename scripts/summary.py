"""Layers of a network with shapes, weights and multiply-adds, beside the paper's figures."""

from facenet.commands.summary import main

if __name__ == "__main__":
    main()
