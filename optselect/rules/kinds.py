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
    """One batch is the whole data set, and the model is small enough to evaluate it several times a step."""
    return profile.data.batches == 1 and profile.model.parameters < FULL_BATCH_PARAMETERS


def is_graph(profile: Profile) -> bool:
    """A batch holds a graph, or the model is named like one for graphs."""
    return profile.data.edges is not None or profile.model.graph


def is_small_regression(profile: Profile) -> bool:
    """A continuous target, at most 1,000 flat rows (a sequence is many), and more weights than rows."""
    size = profile.data.size
    return (
        size is not None
        and profile.data.sequence_length is None
        and size <= SMALL_REGRESSION_ROWS
        and profile.data.label_kind == "continuous"
        and profile.model.parameters > size
    )


def is_tabular(profile: Profile) -> bool:
    """Flat rows of numbers, that no graph joins, into a perceptron: several linear layers, with random weights."""
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
    """Attention holds a good part of the weights."""
    return profile.model.share("attention") >= ATTENTION


def is_convolutional(profile: Profile) -> bool:
    """Convolutions hold half of the weights or more."""
    return profile.model.share("conv") >= CONVOLUTIONAL


def is_factorisation(profile: Profile) -> bool:
    """Tables of embeddings and hardly anything else, without a layer on top."""
    return profile.model.share("embedding") >= FACTORISATION and profile.model.share("linear") == 0


def is_pretrained(profile: Profile) -> bool:
    """The weights have been trained before; a model one cannot tell of counts as fresh."""
    return profile.model.at_initialisation is False


def frozen_share(profile: Profile) -> float:
    """Share of all weights that do not train."""
    frozen, trained = profile.model.frozen, profile.model.parameters
    return frozen / (frozen + trained) if frozen else 0.0


def is_mostly_frozen(profile: Profile) -> bool:
    """Nearly all weights stay as they are: adapters, or a new head, train on top of them."""
    return frozen_share(profile) >= MOSTLY_FROZEN
