"""What kind of training a profile describes: its data, its model, and whether that was trained before."""

from __future__ import annotations

from optselect.profile.values import Profile

# Shares of the trainable scalars from which a model counts as one of that kind.
ATTENTION = 0.1
CONVOLUTIONAL = 0.5
FACTORISATION = 0.95
MOSTLY_FROZEN = 0.9
SMALL_REGRESSION_ROWS = 1_000
FULL_BATCH_PARAMETERS = 1_000_000


# --- the data -----------------------------------------------------------------------------------------------


def is_full_batch(profile: Profile) -> bool:
    """Tell whether one batch is the whole data set, and the model small enough for several evaluations a step."""
    return profile.data.batches == 1 and profile.model.parameters < FULL_BATCH_PARAMETERS


def is_graph(profile: Profile) -> bool:
    """Tell whether a batch holds a graph, or the model is named like one for graphs."""
    return profile.data.edges is not None or profile.model.graph


def is_small_regression(profile: Profile) -> bool:
    """Tell whether the target is continuous, with at most 1,000 flat rows, and fewer rows than weights.

    A sequence is many rows.
    """
    size = profile.data.size
    return (
        size is not None
        and profile.data.sequence_length is None
        and size <= SMALL_REGRESSION_ROWS
        and profile.data.label_kind == "continuous"
        and profile.model.parameters > size
    )


def is_tabular(profile: Profile) -> bool:
    """Tell whether flat rows of numbers, joined by no graph, enter a perceptron with random weights.

    A perceptron has several linear layers, and no convolution, recurrence, attention or embedding.
    """
    model = profile.model
    others = ("conv", "recurrent", "attention", "embedding")
    return (
        profile.data.sequence_length is None
        and not is_graph(profile)
        and model.at_initialisation is not False
        and model.share("linear") >= 0.5
        and model.depth >= 2
        and not any(model.share(kind) for kind in others)
    )


# --- the model ----------------------------------------------------------------------------------------------


def is_transformer(profile: Profile) -> bool:
    """Tell whether attention holds a good part of the weights."""
    return profile.model.share("attention") >= ATTENTION


def is_convolutional(profile: Profile) -> bool:
    """Tell whether convolutions hold half of the weights or more."""
    return profile.model.share("conv") >= CONVOLUTIONAL


def is_factorisation(profile: Profile) -> bool:
    """Tell whether it is tables of embeddings and hardly anything else, without a layer on top."""
    return profile.model.share("embedding") >= FACTORISATION and profile.model.share("linear") == 0


def is_pretrained(profile: Profile) -> bool:
    """Tell whether the weights have been trained before; a model one cannot tell of counts as fresh."""
    return profile.model.at_initialisation is False


def frozen_share(profile: Profile) -> float:
    """Return the share of all weights that do not train."""
    frozen, trained = profile.model.frozen, profile.model.parameters
    return frozen / (frozen + trained) if frozen else 0.0


def is_mostly_frozen(profile: Profile) -> bool:
    """Tell whether nearly all weights stay as they are: adapters, or a new head, train on top of them."""
    return frozen_share(profile) >= MOSTLY_FROZEN
