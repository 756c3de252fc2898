"""The critic's warm-up and its cross-validation."""

from dataclasses import replace

import pytest
import torch
from learning.toys import train_config, trajectories, trajectory
from tiny import make_tiny_checkpoint

from apprentice.errors import ApprenticeError
from apprentice.learning import critic
from apprentice.learning.critic import Samples, fit_head, fold_of_each
from apprentice.learning.models import ValueHead
from apprentice.learning.ppo import PpoLearner
from apprentice.records import Trajectory

SETTINGS = {"learning_rate": 1e-2, "seed": 0}


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return make_tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


def samples(signal: float, tokens: int = 300, hidden: int = 16) -> Samples:
    """Returns that mix a linear function of the features with noise; 20 tokens per trajectory."""
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(tokens, hidden, generator=generator)
    noise = torch.randn(tokens, generator=generator)
    folds = torch.arange(tokens) // 20 % critic.FOLDS
    return Samples(features, torch.arange(tokens), 3.0 + signal * features[:, 0] + (1 - signal) * noise, folds, lambda tensor: tensor)


def groups(count: int, attempts: int = 4, *, told: bool) -> list[Trajectory]:
    """Attempts at tasks that always succeed or always fail; the prompt tells which if `told`."""
    made = []
    for number in range(count * attempts):
        group, reward = number // attempts, float(number // attempts % 2)
        item = trajectory(number, length=30, actions=8, seed=group)
        prompt = (66 if reward else 65,) * 15 if told else item.token_ids[:15]
        made.append(replace(item, group=str(group), reward=reward, token_ids=prompt + item.token_ids[15:]))
    return made


def test_a_head_explains_trajectories_left_out_where_the_features_tell_them_apart():
    fitted = fit_head(ValueHead(16), samples(1.0), epochs=200, **SETTINGS)
    assert fitted.explained_variance > 0.8 and fitted.epochs > 5


def test_a_head_stays_at_the_mean_return_where_they_do_not():
    made = samples(0.0)
    fitted = fit_head(ValueHead(16), made, epochs=200, **SETTINGS)
    values = fitted.head(made.features).detach()
    assert fitted.epochs < 3 and fitted.explained_variance < 0.1
    assert values.mean().item() == pytest.approx(made.returns.mean().item(), abs=0.05) and values.std() < 0.2


def test_fitting_stops_soon_after_the_best_epoch_and_keeps_that(monkeypatch):
    passes, plain = [], critic.HeadFit.run_epoch
    monkeypatch.setattr(critic.HeadFit, "run_epoch", lambda self: passes.append(self) or plain(self))
    fitted = fit_head(ValueHead(16), samples(0.5), epochs=500, **SETTINGS)
    assert 0 < fitted.epochs < 400
    assert len(passes) == critic.FOLDS * (fitted.epochs + critic.PATIENCE) + fitted.epochs
    bounded = fit_head(ValueHead(16), samples(0.5), epochs=2, **SETTINGS)
    assert bounded.epochs == 2 and bounded.explained_variance < fitted.explained_variance


def test_no_epochs_leave_the_head_at_the_mean_return():
    made = samples(1.0)
    fitted = fit_head(ValueHead(16), made, epochs=0, **SETTINGS)
    assert fitted.head(made.features).tolist() == pytest.approx([made.returns.mean().item()] * 300)


def test_two_fits_of_one_seed_are_the_same_to_the_bit():
    one, other = (fit_head(ValueHead(16), samples(0.5), epochs=20, **SETTINGS) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one.head.parameters(), other.head.parameters(), strict=True))


def test_a_group_lies_in_one_fold_and_a_lone_group_is_divided():
    made = groups(12, told=True)
    folds = fold_of_each(made, seed=0)
    assert set(folds) == set(range(critic.FOLDS))
    assert all(len({fold for fold, item in zip(folds, made, strict=True) if item.group == group}) == 1 for group in {item.group for item in made})
    assert len(set(fold_of_each(made[:4], seed=0))) == 4


@pytest.mark.parametrize("kind", ["shared", "separate"])
def test_the_warm_up_gives_the_critic_its_head_and_leaves_the_policy_alone(checkpoint, kind):
    learner = PpoLearner(train_config(critic=kind, critic_warmup_epochs=200, learning_rate=1e-6), checkpoint, dtype="float32")
    before = {name: tensor.clone() for name, tensor in learner.actor.module.state_dict().items()}
    metrics = learner.warm_up_critic(groups(12, told=True))
    assert metrics["explained_variance"] > 0.2 and metrics["epochs"] > 0 and metrics["trajectories"] == 48
    assert all(torch.equal(before[name], tensor) for name, tensor in learner.actor.module.state_dict().items())
    others = [replace(item, id=f"new{item.id}") for item in groups(6, told=True)]
    assert learner.update(others, 0)["explained_variance"] > 0.2


def test_the_warm_up_reports_no_explained_variance_that_only_its_own_trajectories_have(checkpoint):
    learner = PpoLearner(train_config(critic_warmup_epochs=200), checkpoint, dtype="float32")
    assert learner.warm_up_critic(groups(12, told=False))["explained_variance"] < 0.1


def test_one_trajectory_sets_the_mean(checkpoint):
    learner = PpoLearner(train_config(), checkpoint, dtype="float32")
    metrics = learner.warm_up_critic(trajectories(1))
    assert (metrics["explained_variance"], metrics["epochs"]) == (0.0, 0.0)


def test_a_starting_policy_that_is_not_finite_is_refused(checkpoint):
    learner = PpoLearner(train_config(), checkpoint)
    with torch.no_grad():
        learner.actor.module.language_model.get_input_embeddings().weight.fill_(float("nan"))
    with pytest.raises(ApprenticeError, match="warm-up: the starting policy's log-probabilities or the rewards are not finite"):
        learner.warm_up_critic(trajectories(4))
