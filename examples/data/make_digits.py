"""Writes digits.bin from scikit-learn's copy of the UCI digits. README.md describes the format.

    pip install -r tests/peft/requirements.txt
    python examples/data/make_digits.py
"""

import pathlib

import numpy as np
from sklearn.datasets import load_digits


def main():
    digits = load_digits()
    images = digits.images.reshape(-1, 64).astype(np.uint8)
    records = np.concatenate([images, digits.target.astype(np.uint8)[:, None]], axis=1)
    header = b"DIGITS\0\1" + np.array([len(records), 64], dtype="<u4").tobytes()
    (pathlib.Path(__file__).parent / "digits.bin").write_bytes(header + records.tobytes())


if __name__ == "__main__":
    main()
