"""An example for each public name, run from top to bottom: `docs/generate.py` puts each cell on the page of names."""

# %% AutoOptimizer
import lightning as L

from optselect import AutoOptimizer
from optselect.recipes.digits import DigitsData, DigitsModel

auto = AutoOptimizer(budget=0.5, candidates=["adamw", "nadam"], progress=False)
trainer = L.Trainer(max_epochs=2, accelerator="cpu", callbacks=[auto], enable_progress_bar=False)
trainer.fit(DigitsModel(), datamodule=DigitsData())
print(auto.chosen.optimizer, auto.report_path)

# %% LightningWorkload
import torch

from optselect import LightningWorkload, measure, propose


class Proposed(DigitsModel):
    """Takes the rules' word where Lightning asks for the optimizer, in a choice of your own."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        profile = measure(LightningWorkload(self.trainer, self))
        start = next(each for each in propose(profile, candidates=["adamw"]))
        return torch.optim.AdamW(self.parameters(), lr=float(start.hyperparameters["lr"]))


trainer = L.Trainer(max_epochs=1, accelerator="cpu", enable_progress_bar=False)
trainer.fit(Proposed(), datamodule=DigitsData())

# %% Workload
from optselect import Workload, select


def rate_for(workload: Workload) -> float:
    """Whatever trains: with Lightning, with a loop of your own, or by a class of yours."""
    return float(select(workload, budget=0, candidates=["adamw"]).hyperparameters["lr"])


# %% TorchWorkload
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from optselect import TorchWorkload

rows = TensorDataset(torch.randn(256, 8), torch.randint(0, 2, (256,)))
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
workload = TorchWorkload(model, nn.CrossEntropyLoss(), DataLoader(rows, 32), DataLoader(rows, 64), steps=40)
print(rate_for(workload))


def step(model: nn.Module, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    """Return the loss of a batch of any form."""
    return nn.functional.cross_entropy(model(batch["x"]), batch["y"])


dicts = [{"x": torch.randn(32, 8), "y": torch.randint(0, 2, (32,))} for _ in range(8)]
of_dicts = TorchWorkload(model, None, dicts, steps=40, step=step)

# %% measure
from optselect import measure

profile = measure(workload, passes=4)
print(profile.gradient.noise_scale)

# %% Profile
from optselect import Profile

print(profile.quantity("data.size"), profile.model.parameters, profile.steps)
assert Profile.from_dict(profile.to_dict()) == profile

# %% propose
from optselect import propose

print([(each.optimizer, each.score) for each in propose(profile, rules="classic")])

# %% Proposal
from optselect import Proposal

proposal: Proposal = propose(profile, candidates=["sgd"], rules="classic")[0]
print(proposal.configuration.describe())
for vote in proposal.against:
    print(vote.weight, vote.rule, vote.because.describe(), vote.cites)

# %% Budget
from optselect import Budget

a_minute = Budget(seconds=60)
whichever_is_first = Budget(steps=4_000, trials=12)

# %% select
from optselect import select

plan = select(workload, Budget(steps=100), candidates=["adamw", "momentum"], progress=False)

# %% OptimizerPlan
from optselect import OptimizerPlan

print(plan.explain(width=80))
plan.save("plan.json")
plan = OptimizerPlan.load("plan.json")
optimizer, scheduler = plan.build(model)
for batch, target in DataLoader(rows, 32):
    nn.functional.cross_entropy(model(batch), target).backward()
    optimizer.step()
    optimizer.zero_grad()
    if scheduler is not None:
        scheduler.step()

# %% FineTuning
from optselect import FineTuning

policy = FineTuning(head_lr_ratio=10.0, layer_decay=0.8)
print(policy.describe())
auto = AutoOptimizer(fine_tuning=policy)

# %% Thaw
from optselect import Thaw

head_first = FineTuning(thaw=Thaw(epoch=1))
layer_by_layer = FineTuning(thaw=[Thaw(share=0.2, layers=1), Thaw(share=0.5)])

# %% param_groups
from optselect import param_groups

optimizer = torch.optim.AdamW(param_groups(model, policy, lr=1e-3, weight_decay=0.05))

# %% regrouped
from optselect import regrouped

optimizer = regrouped(torch.optim.AdamW(model.parameters(), lr=1e-3), model, policy)
print([(group["name"], group["lr"]) for group in optimizer.param_groups])

# %% catalogue
from optselect import catalogue

print(catalogue.names("adam*"))
print(catalogue.get("adamw").space["lr"].centre)

# %% rules
from optselect.profile import Profile as Measured
from optselect.rules import DEFAULT, Vote, at_least, rule, votes


@rule(cites="our experience with audio", strength="measured")
def long_sequences_favour_rmsprop(profile: Measured) -> tuple[Vote, ...]:
    """Gradients through time differ by orders of magnitude."""
    because = at_least("data.sequence_length", profile.data.sequence_length, 500)
    return votes(because, {"rmsprop": 2.0})


proposals = propose(profile, rules=[*DEFAULT, long_sequences_favour_rmsprop])

# %% Errors
from optselect import OptselectError, UnknownOptimizerError

try:
    catalogue.get("adamv")
except UnknownOptimizerError as error:
    print(error)  # … Did you mean …
try:
    OptimizerPlan.load("nowhere.json")
except OptselectError as error:
    print(error)
