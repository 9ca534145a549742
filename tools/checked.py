"""Insert known bugs of other libraries into a copy of this code: the named test must fail. Writes docs/checked.md.

python tools/checked.py            write the page
python tools/checked.py --try      first insert every bug into a copy of the tree, and stop if its test does not fail
python tools/checked.py --try NLL  only the bugs whose description begins with NLL
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "checked.md"


@dataclass(frozen=True)
class Bug:
    """One bug of other libraries: the behaviour here, the change that inserts the bug, and the test that must fail."""

    bug: str
    instead: str
    tried: str
    file: str  # below src/vaekit
    swaps: tuple[tuple[str, str], ...]  # text that occurs once in the file, and its replacement
    test: str  # below tests, file::name


BUGS = [
    Bug(
        "NLL returned with the wrong sign",
        "`score` and `log_px_iw` are log p(x), tested against closed forms",
        "sign reversed",
        "runs/likelihood.py",
        (('whole["log_px"] += jacobian', 'whole["log_px"] = jacobian - whole["log_px"]'),),
        "metrics/test_oracle.py::test_the_evaluator_gives_the_exact_log_p_and_the_elbo_below_it",
    ),
    Bug(
        "NLL averaged with the wrong sample count",
        "the weights are averaged over the K samples of the example, whether streamed in chunks or not",
        "divided by the number of examples in the block",
        "runs/likelihood.py",
        (
            (
                'parts["log_px"].append(block.weights.log_mean(samples))',
                'parts["log_px"].append(block.weights.log_mean(len(block.x)))',
            ),
        ),
        "metrics/test_oracle.py::test_the_evaluator_gives_the_exact_log_p_and_the_elbo_below_it",
    ),
    Bug(
        "TC weights in the wrong place",
        "alpha weights the mutual information, beta the total correlation, gamma the dimension-wise KL",
        "alpha and beta exchanged",
        "objectives/total_correlation.py",
        (
            ("self.alpha(step) * parts.information", "self.beta(step) * parts.information"),
            ("+ self.beta(step) * parts.correlation", "+ self.alpha(step) * parts.correlation"),
        ),
        "objectives/test_total_correlation.py::test_the_loss_weighs_the_parts_and_the_record_does_not",
    ),
    Bug(
        "TC weights in the wrong place, in the stratified estimate",
        "one weight per pair of examples, inside the sum of each density; unbiased over batches",
        "the weight counted once per dimension in log q(z)",
        "objectives/aggregate.py",
        (("log_sum_exp(weights + whole, 1)", "log_sum_exp((weights.unsqueeze(-1) + pairs).sum(-1), 1)"),),
        "objectives/test_total_correlation.py::test_over_all_batches_the_density_is_unbiased",
    ),
    Bug(
        "FactorVAE's critic trains the encoder",
        "the critic is a separate parameter group; its classification loss uses detached codes",
        "codes not detached",
        "objectives/factor.py",
        (("codes = latent.z.detach()", "codes = latent.z"),),
        "objectives/test_factor.py::test_the_critic_s_loss_never_reaches_the_encoder_and_the_model_s_never_the_critic",
    ),
    Bug(
        "FactorVAE's total correlation never trains the encoder",
        "the total correlation reaches the encoder through the frozen critic",
        "codes detached there, too",
        "objectives/factor.py",
        (("frozen(self.critic)(latent.z).mean()", "frozen(self.critic)(latent.z.detach()).mean()"),),
        "objectives/test_factor.py::test_the_total_correlation_reaches_the_encoder_through_the_frozen_critic",
    ),
    Bug(
        "VQ commitment loss depends on the batch size",
        "summed over the example, averaged once over the batch",
        "summed over the batch",
        "models/quantised/quantisers.py",
        (
            (
                "(q.encoded - q.entries.detach()).square().flatten(1).sum(1)\n",
                "(q.encoded - q.entries.detach()).square().sum().expand(len(q.codes))\n",
            ),
        ),
        "models/test_quantised.py::test_the_loss_of_a_batch_is_the_mean_of_its_datas_own",
    ),
    Bug(
        "the reported IWAE loss is not the bound",
        "the loss is minus the importance-weighted bound, which is recorded as `iwae`",
        "replaced with the weighted mean of the log-weights",
        "objectives/importance.py",
        (
            (
                'Losses({"model": -bound.mean()}, bound_stats(weights, log_px, bound))',
                'Losses({"model": -(torch.softmax(weights, 0).detach() * weights).sum(0).mean()}, '
                "bound_stats(weights, log_px, (torch.softmax(weights, 0) * weights).sum(0)))",
            ),
        ),
        "objectives/test_objectives.py::test_the_bound_rises_with_the_samples_to_log_p",
    ),
    Bug(
        "the best model is chosen by a loss that is not the bound",
        "chosen by the validation ELBO for every objective",
        "chosen by the distortion, the loss of `--beta 0`",
        "training/validation.py",
        (
            (
                'return valid.get("joint", valid.get("bounded", valid.get("elbo", -valid["distortion"])))',
                'return -valid["distortion"]',
            ),
        ),
        "tools/test_checked.py::test_the_best_weights_are_those_of_the_best_bound_whatever_was_minimised",
    ),
    Bug(
        "a last batch of one crashes",
        "every recipe trains on a batch of one with finite gradients",
        "batch normalisation added to the dense networks",
        "networks/dense.py",
        (("self.hidden = nn.Sequential(*layers)", "self.hidden = nn.Sequential(*layers, nn.BatchNorm1d(widths[-1]))"),),
        "test_contract.py::test_a_last_batch_of_one[ae]",
    ),
    Bug(
        "a NaN loss leaves nothing on disk",
        "the error names the term, the step and the last good checkpoint, and the run can be opened",
        "record and state not written",
        "training/loop.py",
        (
            ('        self._record({"kind": "non-finite", "step": step, "term": term})\n', ""),
            ('            self._write_records()\n            self._set_state("failed")\n', "            pass\n"),
        ),
        "training/test_fit.py::test_a_non_finite_term_stops_naming_step_and_term",
    ),
    Bug(
        "0..255 data are silently trained with a sigmoid output",
        "a recipe refuses them before training and says what to write",
        "range of the raw data not checked",
        "recipes/observations.py",
        (("if not spec.integer and (low < 0 or high > 1):", "if False:"),),
        "training/test_fit.py::test_bytes_as_floats_are_refused_with_the_remedy",
    ),
    Bug(
        "0..255 data are silently trained with a sigmoid output, in a user's own network",
        "refused before training, because they are outside the distribution's support",
        "support not checked on the first batch",
        "training/prepare.py",
        (("if not bool(inside.all()):", "if False:"),),
        "training/test_fit.py::test_bytes_as_floats_are_refused_with_the_remedy",
    ),
    Bug(
        "the seed is set after the model is built",
        "set before: one seed gives one result, whatever random numbers the caller drew",
        "seed set after building",
        "training/start.py",
        (("        with seeded(asked.options.seed):  # so", "        if True:  # so"),),
        "training/test_fit.py::test_one_seed_is_one_run",
    ),
    Bug(
        "encode and reconstruct are random",
        "they use the posterior mean unless a sample is requested",
        "always a sample",
        "models/vae.py",
        (
            (
                "q.mean if noise is None else draw(q, noise), *condition",
                "draw(q, noise or Noise.fresh(len(x), x.device)), *condition",
            ),
        ),
        "test_contract.py::test_encoding_and_reconstructing_draw_nothing_unless_asked[vae]",
    ),
    Bug(
        "the evaluation averages batch means",
        "the mean over examples; a short last batch counts by its size",
        "the mean of batch means",
        "training/validation.py",
        (
            ("(part.sum(1) for part in parts)", "(part.mean(1) for part in parts)"),
            ("(totals / n).tolist()", "(totals / len(self.valid_x)).tolist()"),
        ),
        "training/test_fit.py::test_a_last_batch_of_one_is_evaluated_like_any_other",
    ),
    Bug(
        "networks are pickled",
        "a run consists of JSON and safetensors",
        "a torch.save checkpoint written beside the weights",
        "training/loop.py",
        (
            (
                '        write_tensors(self.path / "model.safetensors"',
                '        torch.save(self.engine.tensors(), self.path / "model.pt")\n'
                '        write_tensors(self.path / "model.safetensors"',
            ),
        ),
        "runs/test_run_files.py::test_no_file_of_a_run_is_pickle",
    ),
    Bug(
        "a TensorDataset is refused",
        "any map-style Dataset is accepted",
        "refused",
        "data/readers/memory.py",
        (
            (
                "        if len(data.tensors) > 2:\n",
                '        raise DataError("its items are no dictionaries")\n        if len(data.tensors) > 2:\n',
            ),
        ),
        "data/test_arrays.py::test_tensors_and_datasets",
    ),
    Bug(
        "a mean-reduced MSE is added to the KL, so the KL weight depends on the data size",
        "the distortion is -log p(x|z) of the whole example, with its constants",
        "divided by the number of elements",
        "objectives/terms.py",
        (
            (
                "return -_over_samples(trace.px.log_prob(x), trace)",
                "return -_over_samples(trace.px.log_prob(x), trace) / x[0].numel()",
            ),
        ),
        "metrics/test_oracle.py::test_the_bound_is_below_log_p_and_rises_to_it_with_the_samples",
    ),
    Bug(
        "the ELBO is evaluated at the posterior mean",
        "the evaluator averages over samples of q",
        "log p(x|z) at the posterior mean",
        "runs/likelihood.py",
        (
            (
                "log_px = trace.px.log_prob(x)  # (K, B)",
                "log_px = self.model.decode(self.model.encode(x, c)).log_prob(x).expand(self.k, -1)",
            ),
        ),
        "metrics/test_oracle.py::test_the_evaluator_gives_the_exact_log_p_and_the_elbo_below_it",
    ),
    Bug(
        "the ELBO is evaluated at the posterior mean, in validation",
        "validation averages over samples of q",
        "distortion at the posterior mean",
        "training/validation.py",
        (("d = distortion(trace, x)", "d = -model.decode(model.encode(x, c)).log_prob(x)"),),
        "tools/test_checked.py::test_the_bound_of_validation_is_an_expectation_over_draws",
    ),
    Bug(
        "state is left in class attributes",
        "a training run owns its state; the next one in the same process starts from scratch",
        "optimiser state kept in the class",
        "training/step.py",
        (
            (
                "        self.memory = {n: s for group, ns in self.groups.items() for n, s in self._fresh(group, ns)}",
                '        Engine.kept = getattr(Engine, "kept", {})\n'
                "        fresh = [(n, s) for group, ns in self.groups.items() for n, s in self._fresh(group, ns)]\n"
                "        self.memory = {n: Engine.kept.setdefault((n, s[0].shape), s) for n, s in fresh}",
            ),
        ),
        "tools/test_checked.py::test_a_training_leaves_nothing_behind_for_the_next",
    ),
    Bug(
        "hard-wired 64x64 inputs",
        "networks are built from the shape of the data",
        "the encoder assumes 64x64",
        "networks/convolutional.py",
        (
            (
                "math.prod(grid_sizes(size, len(channels))[-1]), features)",
                "math.prod(grid_sizes((64, 64), len(channels))[-1]), features)",
            ),
        ),
        "training/test_fit.py::test_every_network_takes_every_shape_it_says[conv-grey image]",
    ),
    Bug(
        "hard-wired square inputs",
        "height and width may differ",
        "height used for both",
        "networks/convolutional.py",
        (
            (
                "math.prod(grid_sizes(size, len(channels))[-1]), features)",
                "math.prod(grid_sizes(size[:1] * len(size), len(channels))[-1]), features)",
            ),
        ),
        "training/test_fit.py::test_every_network_takes_every_shape_it_says[conv-grey image]",
    ),
    Bug(
        "latents of noise count as modular",
        "modularity counts the latents with information about a factor beyond chance: a code of noise scores 0",
        "every latent counted",
        "metrics/disentanglement/modularity.py",
        (("informative(z, v, bins=bins) if kept is None", "np.ones(z.shape[1], bool) if kept is None"),),
        "metrics/test_factor_codes.py::test_latents_of_noise_are_left_out",
    ),
    Bug(
        "copies of training data are sought in features that were fitted to the training data, which hides them",
        "distances treat training and held-out data alike; the difference from validation data has an interval",
        "principal components of the training data",
        "metrics/samples/reference.py",
        (
            (
                "return PlainValues(math.prod(self.data.shape), None if plain else both, seed=self.seed)",
                "return RawFeatures(self.data)",
            ),
        ),
        "metrics/test_sample_quality.py::test_memorisation_is_unbiased_for_data_without_structure[150-21]",
    ),
]


def page() -> str:
    escaped = [[text.replace("|", r"\|") for text in (b.bug, b.instead, b.tried)] for b in BUGS]
    rows = [
        f"| {bug} | {instead} | `{b.file}`: {tried} | `tests/{b.test}` |"
        for b, (bug, instead, tried) in zip(BUGS, escaped, strict=True)
    ]
    return "\n".join(
        [
            "# Checked: bugs of other libraries, and the tests that catch them here",
            "",
            "The first column lists bugs found by reading Pythae 0.1.2 and similar libraries, without saying which",
            "library has which bug, and one of an earlier version of vaekit (the last one). Each bug was inserted",
            "into a copy of this code as in the third column, and the test in the fourth column failed.",
            "`python tools/checked.py --try` repeats this. The [glossary](glossary.md) defines the terms.",
            "",
            "| bug | vaekit | inserted change | failing test |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )


def insert(bug: Bug, source: Path) -> tuple[Path, str]:
    """Insert the bug into the copy at `source`; returns the file and its original text."""
    file = source / "src" / "vaekit" / bug.file
    original = text = file.read_text(encoding="utf8")
    for old, new in bug.swaps:
        if text.count(old) != 1:
            raise SystemExit(f"{bug.file} contains this text {text.count(old)} times, not once: {old}")
        text = text.replace(old, new)
    file.write_text(text, encoding="utf8")
    return file, original


def run(bug: Bug, source: Path) -> tuple[bool, str]:
    """Whether the named test passes on the copy, and the last line of its output."""
    environment = {**os.environ, "PYTHONPATH": str(source / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", f"tests/{bug.test}"]
    done = subprocess.run(command, cwd=source, env=environment, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{bug.test} could not run:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
    failed = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    return done.returncode == 0, (failed or done.stdout.splitlines())[-1]


def try_all(bugs: list[Bug]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("src", "tests", "docs", "pyproject.toml"):
            path = ROOT / name
            shutil.copytree(path, copy / name) if path.is_dir() else shutil.copy(path, copy / name)
        for bug in bugs:
            begun = time.monotonic()
            file, original = insert(bug, copy)
            passed, line = run(bug, copy)
            file.write_text(original, encoding="utf8")
            print(f"{time.monotonic() - begun:5.1f} s  {bug.bug}: {line}", flush=True)
            if passed:
                raise SystemExit(f"{bug.test} does not detect: {bug.bug} ({bug.tried})")


if __name__ == "__main__":
    if "--try" in sys.argv:
        start = " ".join(sys.argv[sys.argv.index("--try") + 1 :])
        try_all([bug for bug in BUGS if bug.bug.startswith(start)])
    PAGE.write_text(page(), encoding="utf8")
