from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import nn
from torch.utils.data import Dataset

from ffplug.errors import ConfigError, DataError
from ffplug.evaluation import format_figure, read_metrics
from ffplug.registry import HOOKS
from ffplug.structures import FlowDataSample
from ffplug.visualization import FlowVisualizer, write_report
from ffplug.visualization.curves import line_chart


class Shifts(Dataset):
    """Pairs whose frame 2 is frame 1 moved by whole pixels."""

    metainfo = dict(dataset="Sintel/clean", procedural=True)

    def __len__(self):
        return 6

    def __getitem__(self, index):
        rng = np.random.default_rng(int(index))
        first = torch.from_numpy(cv2.resize(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8), (40, 30))).permute(2, 0, 1)
        u, v = index + 1, -1
        sample = FlowDataSample(
            gt_flow=torch.stack([torch.full((30, 40), float(u)), torch.full((30, 40), float(v))]),
            gt_valid=torch.ones(30, 40),
        )
        sample.set_metainfo(
            dict(
                sample_id=f"clean/s/{index}",
                sequence=f"s{index % 2}",
                frame=int(index),
                ori_shape=(30, 40),
                **self.metainfo,
            )
        )
        return dict(inputs=torch.stack([first, first.roll((v, u), (1, 2))]), data_samples=sample)


class OneFlow(BaseModel):
    """Learns one flow vector for all pixels."""

    def __init__(self):
        super().__init__()
        self.motion = nn.Parameter(torch.zeros(2))

    def forward(self, inputs, data_samples=None, mode="tensor"):
        if mode == "loss":
            truth = torch.stack([sample.gt_flow for sample in data_samples])
            return dict(loss=(truth - self.motion[None, :, None, None]).abs().mean())
        for sample in data_samples:
            sample.pred_flow = self.motion.detach()[:, None, None].expand(2, *sample.gt_flow.shape[1:]).clone()
        return data_samples


def loader(shuffle):
    return dict(
        batch_size=2,
        dataset=Shifts(),
        sampler=dict(type="DefaultSampler", shuffle=shuffle),
        collate_fn=dict(type="pseudo_collate"),
    )


def make_runner(work_dir, name, **extra):
    return Runner(
        model=OneFlow(),
        work_dir=str(work_dir),
        default_scope="mmengine",
        experiment_name=name,
        default_hooks=dict(logger=dict(type="LoggerHook", interval=2, log_metric_by_epoch=False), checkpoint=None),
        custom_hooks=[
            dict(type="ffplug.FlowVisualizationHook", worst=2, best=1, every=3),
            dict(type="ffplug.ReportHook"),
        ],
        log_processor=dict(by_epoch=False),
        visualizer=dict(type="ffplug.FlowVisualizer", name=name, vis_backends=[dict(type="LocalVisBackend")]),
        **extra,
    )


@pytest.fixture(scope="module")
def work_dir(tmp_path_factory):
    """A work directory left by a real training with validation."""
    path = tmp_path_factory.mktemp("work") / "tiny_sintel"
    evaluator = dict(type="ffplug.FlowMetric")
    make_runner(
        path,
        "report_train",
        train_dataloader=loader(True),
        train_cfg=dict(by_epoch=False, max_iters=12, val_interval=4),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.5)),
        val_dataloader=loader(False),
        val_cfg={},
        val_evaluator=evaluator,
    ).train()
    return path


class Page(HTMLParser):
    """Collects texts, table rows and what the page would load."""

    def __init__(self, html):
        super().__init__()
        self.rows, self.texts, self.loads, self.open = [], [], [], []
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.loads += [attributes[name] for name in ("src", "href") if name in attributes]
        if tag == "tr":
            self.rows.append([])
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1].append(data)


def test_training_leaves_a_report_with_its_figures(work_dir):
    html = (work_dir / "report.html").read_text()
    page = Page(html)
    assert not page.open
    evaluation = read_metrics(work_dir / "metrics.json")["val"]["sintel_clean"]
    figures = evaluation["regions"]["all"]
    row = next(row for row in page.rows if row[0] == "all")
    assert row[1:4] == [format_figure(figures[name]) for name in ("EPE", "EPE_zero", "EPE_ratio")]
    assert evaluation["iteration"] == 12 and evaluation["pairs"] == 6
    assert [r[0] for r in page.rows if r[0] in ("s0", "s1")] == ["s0", "s1"]
    assert f"{figures['EPE']:.3f} px" in page.texts
    assert any("procedural, not Sintel/clean" in text for text in page.texts) and 'class="banner"' in html
    assert "12 iterations" in page.texts
    assert html.count("<svg") == 3  # loss, EPE, learning rate
    assert html.count("<polyline") == 4  # loss, EPE, zero flow, learning rate

    pictures = [load for load in page.loads if load.startswith("data:image/")]
    assert len(pictures) == 2 + 1 + 2 and len(pictures) == len(page.loads), "nothing is loaded from elsewhere"
    assert not re.search(r"(?:src|href|url)\s*[=(]\s*[\"']?https?:", html)
    picture = cv2.imdecode(np.frombuffer(base64.b64decode(pictures[0].split(",")[1]), np.uint8), cv2.IMREAD_COLOR)
    assert picture.shape[1] > 1000


def test_hook_draws_the_worst_and_best_pairs_and_replaces_them(work_dir):
    listed = json.loads((work_dir / "vis" / "val" / "pairs.json").read_text())
    samples = read_metrics(work_dir / "metrics.json")["val"]["sintel_clean"]["samples"]
    by_error = [s["sample_id"] for s in sorted(samples, key=lambda s: -s["EPE"])]
    assert [e["sample_id"] for e in listed if e["kind"] == "worst"] == by_error[:2]
    assert [e["sample_id"] for e in listed if e["kind"] == "best"] == by_error[-1:]
    assert [e["sample_id"] for e in listed if e["kind"] == "every"] == ["clean/s/0", "clean/s/3"]
    assert {e["file"] for e in listed} == {p.name for p in (work_dir / "vis" / "val").glob("*.png")}
    errors = {s["sample_id"]: s["EPE"] for s in samples}
    assert all(e["epe"] == pytest.approx(errors[e["sample_id"]]) for e in listed)
    assert all(e["source"] == "procedural, not Sintel/clean" and e["iteration"] == 12 for e in listed)


def test_worst_and_best_pairs_are_those_of_all_ranks(tmp_path):
    torch.multiprocessing.start_processes(_look_on_rank, args=(str(tmp_path),), nprocs=2, start_method="fork")
    listed = json.loads((tmp_path / "vis" / "test" / "pairs.json").read_text())
    chosen = {kind: [e["sample_id"][-1] for e in listed if e["kind"] == kind] for kind in ("worst", "best")}
    assert chosen == {"worst": ["5", "4", "3"], "best": ["0", "1"]}
    assert {e["file"] for e in listed} == {p.name for p in (tmp_path / "vis" / "test").glob("*.png")}


def _look_on_rank(rank, folder):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    data, model = Shifts(), OneFlow()
    runner = SimpleNamespace(work_dir=folder, visualizer=FlowVisualizer(name=f"rank{rank}"), _train_loop=None)
    hook = HOOKS.build(dict(type="ffplug.FlowVisualizationHook", worst=3, best=2))
    hook.before_test_epoch(runner)
    for position, index in enumerate([rank, 2 + rank, 4 + rank, rank]):  # the last one fills the batch
        item = data[index]
        outputs = model(None, [item["data_samples"]], mode="predict")
        hook.after_test_iter(runner, position, dict(inputs=[item["inputs"]]), outputs)
    hook.after_test_epoch(runner)
    torch.distributed.destroy_process_group()


def test_run_record(work_dir):
    (record,) = [json.loads(p.read_text()) for p in work_dir.glob("*/run.json")]
    assert record["mode"] == "train" and record["wall_seconds"] > 0
    assert record["procedural"] == ["procedural, not Sintel/clean"]
    assert record["environment"]["torch"] == torch.__version__


def test_testing_alone_leaves_a_report(tmp_path):
    make_runner(
        tmp_path / "tested",
        "report_test",
        test_dataloader=loader(False),
        test_cfg={},
        test_evaluator=dict(type="ffplug.FlowMetric", prefix="mine"),
    ).test()
    page = Page((tmp_path / "tested" / "report.html").read_text())
    assert any(text.startswith("Test: procedural") for text in page.texts)
    summary = read_metrics(tmp_path / "tested" / "metrics.json")["test"]["mine"]["summary"]
    assert summary["EPE"] == summary["EPE_zero"] and summary["EPE_ratio"] == 1
    assert len([load for load in page.loads if load.startswith("data:image/")]) == 5


def test_report_of_a_run_that_was_killed(tmp_path):
    scalars = tmp_path / "20250101_000000" / "vis_data" / "scalars.json"
    scalars.parent.mkdir(parents=True)
    scalars.write_text('{"loss": 2.0, "lr": 0.1, "step": 1}\n{"loss": 1.0, "lr": 0.1, "step": 2}\n{"loss": 0.')
    (tmp_path / "metrics.json").write_text('{"format"')
    page = Page(write_report(tmp_path).read_text())
    assert "2 iterations" in page.texts and "Training loss" in page.texts


def test_a_resumed_run_replaces_what_it_repeats(tmp_path):
    for name, steps, loss in (("1", range(1, 6), 9.0), ("2", range(4, 9), 1.0)):
        scalars = tmp_path / name / "vis_data" / "scalars.json"
        scalars.parent.mkdir(parents=True)
        scalars.write_text("".join(json.dumps({"loss": loss, "step": step}) + "\n" for step in steps))
    html = write_report(tmp_path).read_text()
    assert re.findall(r"<title>loss: (\d+) at (\d+)</title>", html) == [
        *(("9", str(step)) for step in range(1, 4)),
        *(("1", str(step)) for step in range(4, 9)),
    ]


def test_command(work_dir, tmp_path):
    from ffplug.cli.report import command

    result = CliRunner().invoke(command, [str(work_dir)])
    assert result.exit_code == 0 and result.output.strip() == str(work_dir / "report.html")
    for folder, message in ((tmp_path / "none", "no such folder"), (tmp_path, "not a work directory")):
        with pytest.raises(DataError, match=message):
            write_report(folder)


def test_negative_counts_are_refused():
    with pytest.raises(ConfigError, match="worst=-1"):
        HOOKS.build(dict(type="ffplug.FlowVisualizationHook", worst=-1))


def test_chart_escapes_names_and_leaves_gaps():
    chart = line_chart("a < b", {"<x>": [(0, 1.0), (1, float("nan")), (2, 1000.0), (3, 50.0)]})
    assert "(log)" in chart and chart.count("<polyline") == 2 and "<x>" not in chart
    assert line_chart("empty", {"x": [(0, float("nan"))]}) == ""
    assert line_chart("flat", {"x": [(5, 0.0)]}).count("<circle") == 1
