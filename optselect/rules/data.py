"""What the data say about the choice."""

from __future__ import annotations

from optselect.profile.values import Profile
from optselect.rules.kinds import SMALL_REGRESSION_ROWS, is_full_batch, is_small_regression, is_tabular
from optselect.rules.rule import Answer, Evidence, Rule, at_least, at_most, rule, votes


@rule(
    cites="Kunstner et al. 2024, arXiv:2402.19449; measured here with 1/k classes: train loss SGD 3.15, "
    "Adam 2.56, NAdam 2.40",
    strength="measured",
)
def rare_classes_favour_adaptive_steps(profile: Profile) -> Answer:
    """SGD learns rare classes last; Adam learns every class at a like pace."""
    because = at_least("data.rare_class_share", profile.data.rare_class_share, 0.5)
    return votes(because, {"nadam": 1.5, "adamw": 1.0, "adam": 1.0, "momentum": -1.0, "sgd": -1.0})


@rule(
    cites="arXiv:2604.15297, raw data of 17 data sets: win/tie/loss against AdamW: Muon 12/5/0, "
    "Schedule-Free 10/6/1, NAdamW 1/14/2, SGD 2/3/12 (with a weight decay at its bound)",
    strength="raw data",
)
def tabular_networks_train_best_with_muon(profile: Profile) -> Answer:
    """The weights of a perceptron are hidden matrices, whose small singular directions Muon trains too."""
    if not is_tabular(profile):
        return None
    because = Evidence(quantity="model.kinds", value="linear layers on flat rows")
    weights = {"schedulefree_adamw": 1.0, "adamw": 0.5, "momentum": -0.25, "lion": -0.5}
    return votes(because, weights | ({"muon": 1.5} if profile.model.muon_share > 0 else {}))


@rule(
    cites="measured here (diabetes, 442 rows): RMSprop 3e-4 won; regret of Muon .01 3.0, of SGD 6.2",
    strength="measured",
)
def a_small_noisy_regression_wants_cautious_steps(profile: Profile) -> Answer:
    """With more weights than rows and a noisy target, whatever fits fastest overfits first."""
    if not is_small_regression(profile):
        return None
    because = Evidence(quantity="data.size", value=profile.data.size, threshold=SMALL_REGRESSION_ROWS, sense="at most")
    return votes(because, {"rmsprop": 3.0, "adamw": 2.0, "adam": 1.0, "muon": -4.0, "momentum": -1.0, "sgd": -0.5})


@rule(
    cites="measured here (1 %-dense linear model): validation loss SGD-momentum .456, NAdam .457, Adam .465, "
    "Adagrad .481",
    strength="measured",
)
def sparse_features_of_a_shallow_model_do_not_need_adagrad(profile: Profile) -> Answer:
    """In a nearly linear model momentum gathers rare gradients as well as a long memory of squares."""
    because = at_most("data.density", profile.data.density, 0.05)
    if because is None or profile.model.depth > 2:
        return None
    return votes(because, {"momentum": 1.0, "nadam": 1.0, "adam": 0.5, "adagrad": 0.25})


@rule(
    cites="AlgoPerf v0.5 self-tuning: Schedule-Free AdamW .854, NAdamW .819; 0 of 5 studies on a BatchNorm "
    "ResNet (arXiv:2502.15015 and its raw logs)",
    strength="raw data",
)
def an_unknown_horizon_favours_schedule_free_averaging(profile: Profile) -> Answer:
    """Averaging the iterates does what a decaying lr does, without knowing when training ends."""
    if profile.steps is not None:
        return None
    because = Evidence(quantity="steps", value="not known")
    # The running statistics of BatchNorm belong to weights that the averaged ones are not.
    weight = -0.5 if profile.model.batch_norm else 1.5
    return votes(because, {"schedulefree_adamw": weight})


@rule(cites="Rathore et al. 2024, arXiv:2402.01868 (Adam, then L-BFGS); torch.optim.LBFGS", strength="paper")
def a_small_full_batch_problem_can_be_solved_with_curvature(profile: Profile) -> Answer:
    """Without sampling noise a quasi-Newton step and its line search see the true loss."""
    if not is_full_batch(profile) or profile.model.dropout > 0:
        return None
    because = Evidence(quantity="data.batches", value=1, threshold=1, sense="at most")
    return votes(because, {"adam": 5.0, "lbfgs": 4.0, "nadam": 0.5})


@rule(cites="Nocedal & Wright 2006, chapter 3: a line search needs the same function twice", strength="textbook")
def a_line_search_needs_the_same_loss_twice(profile: Profile) -> Answer:
    """On a mini-batch, or under dropout, a line search fits noise, and every step costs several passes."""
    if not is_full_batch(profile):
        because = Evidence(quantity="data.batches", value=profile.data.batches or "not known")
    elif profile.model.dropout > 0:
        because = Evidence(quantity="model.dropout", value=profile.model.dropout)
    else:
        return None
    return votes(because, {"lbfgs": -10.0})


DATA: tuple[Rule, ...] = (
    rare_classes_favour_adaptive_steps,
    tabular_networks_train_best_with_muon,
    a_small_noisy_regression_wants_cautious_steps,
    sparse_features_of_a_shallow_model_do_not_need_adagrad,
    an_unknown_horizon_favours_schedule_free_averaging,
    a_small_full_batch_problem_can_be_solved_with_curvature,
    a_line_search_needs_the_same_loss_twice,
)
