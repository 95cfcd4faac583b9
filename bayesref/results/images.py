"""images.csv: one row for each image.

file, image        name of the file and its own number of the image
spots, dmin        spots used, and the smallest d among them, Å
operator, p_*      way of indexing that was taken, h' of the indices in the file, and the probability of each way
p_bad              probability that the image has nothing to do with the others
weight, quality    w_j, which multiplies its log likelihood, and its second factor (`inference.image_outliers`)
log_K              mean of log K of its spots
cc                 correlation of I with what the posterior expects
"""

from pathlib import Path

import numpy as np
import pandas as pd
import torch

from bayesref.data.observations import Observations
from bayesref.inference.cross_validation import Predictions
from bayesref.inference.image_outliers import Images
from bayesref.io.atomic import atomic_path


def image_table(images: Images, obs: Observations, predictions: Predictions) -> pd.DataFrame:
    """The table of the module's text.

    Parameters
    ----------
    images : what the fit found
    obs, predictions : of the spots, in the same order
    """
    j, n = obs.image_id, obs.n_image
    spots = torch.bincount(j, minlength=n)

    def mean(x):
        return torch.zeros(n, dtype=torch.float64).index_add(0, j, x) / spots

    d = torch.full((n,), np.inf, dtype=torch.float64).scatter_reduce(0, j, obs.asu.dHKL[obs.hkl_id], "amin")
    I, E = obs.I - mean(obs.I)[j], predictions.I - mean(predictions.I)[j]
    cc = mean(I * E) / (mean(I**2) * mean(E**2)).sqrt()
    number = torch.arange(n) if obs.image_number is None else obs.image_number
    file = torch.zeros(n, dtype=torch.int64) if obs.image_file is None else obs.image_file
    names = obs.files or ("",) * (int(file.max()) + 1)
    columns = {"file": [names[f] for f in file.tolist()], "image": number.numpy()}
    columns |= {"spots": spots.numpy(), "dmin": d.numpy()}
    p = images.probability.numpy()
    if images.ways is not None:
        operators = images.ways.operators
        columns["operator"] = [operators[g] for g in images.choice.tolist()]
        belongs = p[:, :-1] / np.maximum(p[:, :-1].sum(axis=1, keepdims=True), 1e-300)
        columns |= {f"p_{op}": belongs[:, g] for g, op in enumerate(operators)}
    columns |= {"p_bad": p[:, -1], "weight": images.weight.numpy(), "quality": images.quality_weight.numpy()}
    columns |= {"log_K": mean(predictions.K.log()).numpy(), "cc": cc.numpy()}
    return pd.DataFrame(columns)


def write_images(table: pd.DataFrame, path: Path) -> None:
    """Write it, atomically.

    Raises
    ------
    InputError : it cannot be written
    """
    with atomic_path(path) as temporary:
        table.to_csv(temporary, index=False, float_format="%.6g")
