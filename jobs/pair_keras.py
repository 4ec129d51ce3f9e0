"""A model of (user, item) pairs that Keras trains and exports, in an environment of its own.

    python pair_keras.py SEEN.npy FOLDER

SEEN is 0 or 1, float32 `[users, items]`. Writes FOLDER/model.onnx and FOLDER/scores.npy, what Keras
itself gives each pair, float32 `[users, items]`. Nothing of Headrace is imported here, and nothing
here knows of it: names and shapes of the graph are Keras's.

Generalised matrix factorisation (He et al., "Neural Collaborative Filtering", WWW 2017): the
weighted product of two embeddings, here with a bias of the item. Each pair that was seen is held
against pairs that were not.
"""

import sys
from pathlib import Path
from typing import Any

import keras
import numpy as np
import numpy.typing as npt

WIDTH = 8
# Pairs that were not seen, for each that was.
NEGATIVES = 4
EPOCHS = 3
BATCH = 1024
RATE = 0.01
DECAY = 1e-5
SEED = 0
PREDICTED_AT_ONCE = 1 << 16

Numbers = npt.NDArray[np.int64]
Matrix = npt.NDArray[np.float32]


def built(users: int, items: int) -> Any:
    """The model, untrained."""
    user = keras.Input((1,), dtype="int32", name="user")
    item = keras.Input((1,), dtype="int32", name="item")

    def looked_up(index: Any, size: int, width: int) -> Any:
        shrunk = keras.regularizers.L2(DECAY)
        table = keras.layers.Embedding(size, width, embeddings_regularizer=shrunk)
        return keras.layers.Flatten()(table(index))

    taste, style = looked_up(user, users, WIDTH), looked_up(item, items, WIDTH)
    weighted = keras.layers.Dense(1)(keras.layers.Multiply()([taste, style]))
    return keras.Model([user, item], keras.layers.Add()([weighted, looked_up(item, items, 1)]))


def pairs(seen: Matrix) -> tuple[Numbers, Numbers, Matrix]:
    """Users, items and labels `[pairs]`: what was seen, and some of what was not."""
    users, items = np.nonzero(seen)
    others = np.repeat(users, NEGATIVES)
    drawn = np.random.default_rng(SEED).integers(seen.shape[1], size=len(others))
    fresh = seen[others, drawn] == 0
    users = np.concatenate([users, others[fresh]])
    items = np.concatenate([items, drawn[fresh]])
    return users, items, seen[users, items]


def main() -> None:
    """Train, predict, export."""
    keras.utils.set_random_seed(SEED)
    seen, folder = np.load(sys.argv[1]), Path(sys.argv[2])
    model = built(*seen.shape)
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(RATE), loss)
    users, items, labels = pairs(seen)
    model.fit([users, items], labels, batch_size=BATCH, epochs=EPOCHS, verbose=0)
    everything = list(np.indices(seen.shape, np.int32).reshape(2, -1, 1))
    scores = model.predict(everything, batch_size=PREDICTED_AT_ONCE, verbose=0)
    np.save(folder / "scores.npy", scores.reshape(seen.shape))
    model.export(folder / "model.onnx", format="onnx", verbose=False)


if __name__ == "__main__":
    main()
