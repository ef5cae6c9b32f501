"""What one trial runs."""

import json

from optselect.configuration import USER, Configuration
from optselect.configuration.schedule import Schedule


def test_a_configuration_survives_json_with_its_key() -> None:
    configuration = Configuration(
        optimizer="momentum", hyperparameters={"lr": 0.1, "nesterov": True}, schedule=Schedule(kind="cosine")
    )

    again = Configuration.from_dict(json.loads(json.dumps(configuration.to_dict())))

    assert again == configuration
    assert again.key == configuration.key


def test_the_order_of_the_hyperparameters_changes_no_key() -> None:
    one = Configuration(optimizer="adamw", hyperparameters={"lr": 0.1, "weight_decay": 0.0})
    other = Configuration(optimizer="adamw", hyperparameters={"weight_decay": 0.0, "lr": 0.1})

    assert one.key == other.key


def test_another_rate_or_another_schedule_has_another_key() -> None:
    one = Configuration(optimizer="adamw", hyperparameters={"lr": 0.1})
    rate = Configuration(optimizer="adamw", hyperparameters={"lr": 0.1000001})
    schedule = Configuration(optimizer="adamw", hyperparameters={"lr": 0.1}, schedule=Schedule(kind="cosine"))

    assert len({one.key, rate.key, schedule.key}) == 3


def test_a_key_is_the_same_on_every_machine() -> None:
    assert Configuration(optimizer="sgd", hyperparameters={"lr": 0.5}).key == "ac186e90aeaa"


def test_a_configuration_says_what_it_is() -> None:
    configuration = Configuration(
        optimizer="adamw",
        hyperparameters={"lr": 0.0031234, "amsgrad": False},
        schedule=Schedule(kind="cosine", warmup_steps=20),
    )

    assert configuration.describe() == "adamw lr=0.00312 amsgrad=False, cosine after 20 warmup steps"
    assert Configuration(optimizer=USER).describe() == "your own optimizer, as it is"


def test_what_the_users_own_is_called_makes_no_other_configuration() -> None:
    own = Configuration(optimizer=USER)
    named = Configuration(optimizer=USER, called="AdamW lr=0.001, ReduceLROnPlateau")

    assert (named, named.key) == (own, own.key)
    assert named.describe() == "yours: AdamW lr=0.001, ReduceLROnPlateau"
    assert named.at_rate(3.0).describe() == "yours: AdamW lr=0.001, ReduceLROnPlateau, its learning rate × 3"
    assert Configuration.from_dict(named.to_dict()).called == named.called
