"""A model of pairs that knows nothing of the pipeline: scikit-learn's SVD as (user, item) to score.

PureSVD of Cremonesi, Koren and Turrin, RecSys 2010: the score is the product of a user's and an
item's factors.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
from onnx import TensorProto, helper, numpy_helper
from sklearn.decomposition import TruncatedSVD

from jobs.ease import model, tensor

# One factor for so many items: 24 for MovieLens 100K.
ITEMS_PER_FACTOR = 70
SEED = 0

Matrix = npt.NDArray[np.float32]


def fit(interactions: Matrix) -> tuple[Matrix, Matrix]:
    """Factors of users `[users, factors]` and of items `[items, factors]`."""
    factors = max(2, interactions.shape[1] // ITEMS_PER_FACTOR)
    svd = TruncatedSVD(factors, random_state=SEED)
    users: Any = svd.fit_transform(interactions)
    return users.astype(np.float32), svd.components_.T.astype(np.float32)


def export(users: Matrix, items: Matrix) -> bytes:
    """The graph of pairs: `user_id` and `item_id`, both `[pairs]`, to `score` `[pairs]`."""
    nodes = [
        helper.make_node("Gather", ["users", "user_id"], ["user"]),
        helper.make_node("Gather", ["items", "item_id"], ["item"]),
        helper.make_node("Mul", ["user", "item"], ["products"]),
        helper.make_node("ReduceSum", ["products", "axis"], ["score"], keepdims=0),
    ]
    constants = [
        numpy_helper.from_array(users, "users"),
        numpy_helper.from_array(items, "items"),
        numpy_helper.from_array(np.array([1], np.int64), "axis"),
    ]
    return model(
        "pairs",
        nodes,
        [tensor(name, TensorProto.INT64, ["pairs"]) for name in ("user_id", "item_id")],
        [tensor("score", TensorProto.FLOAT, ["pairs"])],
        constants,
    )
