"""Related datasets (`--double-wilson-parents` and what belongs to it): the tree, its prior, and the r held fixed."""

from bayesref._checks import InputError
from bayesref.cli.options import MergeSettings
from bayesref.cli.prior import DEFAULT_PAGE, Prior
from bayesref.inference.tree_datasets import ROOTS, DatasetTree

PAGE = "merge_double_wilson"
OPTIONS = {
    "double_wilson_r": "--double-wilson-r",
    "double_wilson_reindex": "--double-wilson-reindex",
    "double_wilson_orders": "--double-wilson-orders",
}


def dataset_tree(settings: MergeSettings) -> DatasetTree | None:
    """The tree asked for; None where the datasets are independent.

    Raises
    ------
    InputError : options that do not go together, or a tree that is none
    """
    if settings.double_wilson_parents is None:
        for name, option in OPTIONS.items():
            if getattr(settings, name):
                raise InputError(
                    f"{option} belongs to --double-wilson-parents, which says which file is related."
                )
        return None
    if not settings.separate_files:
        raise InputError(
            "--double-wilson-parents relates datasets; keep the files apart with --separate-files."
        )
    if settings.method != "deterministic":
        raise InputError("Related datasets are fitted by --method deterministic; leave --method out.")
    if settings.prior is not None or settings.prior_mtz is not None or settings.prior_model is not None:
        raise InputError(
            "--double-wilson-parents is a prior of its own; leave --prior and its reference out."
        )
    if settings.wavelength_range is not None:
        raise InputError(
            "--double-wilson-parents does not go with --wavelength-range yet; leave the range out, and spots that "
            "several orders share are left out."
        )
    tree = DatasetTree.parse(
        settings.double_wilson_parents, settings.double_wilson_reindex, settings.double_wilson_orders
    )
    if not tree.pairs and not settings.anomalous:
        raise InputError(
            f"--double-wilson-parents {settings.double_wilson_parents} relates no dataset to another; name a parent."
        )
    return tree


def related_prior(settings: MergeSettings) -> Prior | None:
    """Page and tree; None without related datasets."""
    tree = dataset_tree(settings)
    if tree is None:
        return None
    return Prior(PAGE if settings.model == DEFAULT_PAGE else settings.model, {"tree": tree})


def held_correlations(settings: MergeSettings) -> dict[str, float]:
    """Sites of the r that --double-wilson-r gives, by name.

    Raises
    ------
    InputError : not one number for each file, or one outside (0, 1)
    """
    tree, text = dataset_tree(settings), settings.double_wilson_r
    if tree is None or not text:
        return {}
    words = [w.strip() for w in text.split(",")]
    if len(words) != len(tree.parents):
        raise InputError(
            f"--double-wilson-r {text} has {len(words)} values for {len(tree.parents)} datasets; give one each, "
            "None for roots and for those to learn."
        )
    found = {}
    for k, (word, parent) in enumerate(zip(words, tree.parents, strict=True)):
        if word.lower() in ROOTS or (parent is None and word in ("0", "0.", "0.0")):
            continue
        try:
            r = float(word)
        except ValueError:
            raise InputError(
                f"'{word}' among --double-wilson-r {text} is neither a number nor None."
            ) from None
        if parent is None:
            raise InputError(f"Dataset {k} is a root, but --double-wilson-r gives it {r:g}; give None there.")
        if not 0 < r < 1:
            raise InputError(f"--double-wilson-r is {r:g} for dataset {k}; it must lie between 0 and 1.")
        found[f"r_{k}"] = r
    return found
