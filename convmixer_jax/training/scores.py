"""The evaluations of a run while it trains: what is due, what came out, which step is the best.

    scores = Scores(experiment, evaluations, context, reports, stopping, history)
    scores.evaluate_all(step, state, scores.due(done=False))
    if scores.is_best(step): ...

An evaluation that a signal cuts short is abandoned. What was still due is kept with the checkpoint, and made when the
run goes on, before any update.
"""

from collections.abc import Iterable
from typing import Any

from convmixer_jax.data.inputs import EvalInput
from convmixer_jax.training.assembly import Experiment
from convmixer_jax.training.capacity import evaluation_mistakes
from convmixer_jax.training.context import RunContext
from convmixer_jax.training.evaluate import evaluate_state
from convmixer_jax.training.reports import Reports
from convmixer_jax.training.state import TrainState
from convmixer_jax.training.stopping import AbandonedError, Stopping


class Scores:
    """history: what a checkpoint's meta carries of it: best, pending.

    results: the newest evaluation of each split. best: {"val_top1", "step"}, or None. pending: splits to evaluate
    before the run goes on.
    """

    def __init__(
        self,
        experiment: Experiment,
        evaluations: dict[str, EvalInput],
        context: RunContext,
        reports: Reports,
        stopping: Stopping,
        history: dict[str, Any],
    ):
        self._experiment, self._evaluations, self._context = experiment, evaluations, context
        self._reports, self._stopping = reports, stopping
        self.results: dict[str, dict[str, Any]] = {}
        self.best: dict[str, Any] | None = history.get("best")
        self.pending: list[str] = list(history.get("pending", []))
        self._val: tuple[int, float] | None = None
        self._compiled = False

    def due(self, done: bool) -> list[str]:
        """Returns the splits to evaluate: while training the one that it is judged by, at its end all."""
        return list(self._evaluations) if done else [self._experiment.eval_split]

    def evaluate_all(self, step: int, state: TrainState, splits: Iterable[str]) -> None:
        """Evaluates splits one after the other and writes their rows.

        Raises AbandonedError for a signal; `pending` holds what is left then.
        """
        self.pending = list(splits)
        while self.pending:
            split = self.pending[0]
            result = self.evaluate(step, state, split)
            self._reports.write_evaluation(step, split, result)
            if split == "val":
                self._val = (step, result["top1"])
                if self.best is None or result["top1"] >= self.best["val_top1"]:
                    self.best = {"val_top1": result["top1"], "step": step}
            self.pending.pop(0)

    def val_top1(self, step: int) -> float | None:
        """Returns the validation top-1 of this very step, where it was evaluated in this start."""
        return self._val[1] if self._val is not None and self._val[0] == step else None

    def is_best(self, step: int) -> bool:
        """Whether this step was just evaluated, and none before it was better."""
        return self.val_top1(step) is not None and self.best is not None and self.best["step"] == step

    def evaluate(self, step: int, state: TrainState, split: str) -> dict[str, Any]:
        """Evaluates the state on a split and keeps the result in `results`. Raises AbandonedError for a signal."""
        experiment, watch = self._experiment, self._context.watch

        def before_batch(number: int) -> None:
            if self._stopping.due():
                raise AbandonedError
            watch.doing(f"evaluation of {split}, batch {number}", compiling=not self._compiled)
            self._compiled = number > 0

        mistakes = evaluation_mistakes(experiment.eval_batch_size, experiment.input_name)
        with self._context.clock.pause("evaluation"), mistakes:
            self.results[split] = evaluate_state(
                experiment.eval_step,
                state,
                experiment.config.eval_params,
                self._evaluations[split],
                experiment.sizes[split],
                before_batch,
            )
        self._context.ledger.note("evaluation", step, self._context.clock.spent())
        return self.results[split]
