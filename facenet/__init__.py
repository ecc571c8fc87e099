"""FaceNet: train, ship and upgrade face embeddings with the triplet loss.

Images become unit vectors, and everything after training works on those vectors. Importing this
package imports no torch; the rooms that need it do so themselves.
"""

__version__ = "0.1.0"
