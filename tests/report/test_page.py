"""The page of a plan: whole, readable by everybody, and closed to whatever a name may hold."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass, field, replace
from html.parser import HTMLParser
from importlib import resources
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest
import torch

from optselect import OptimizerPlan, catalogue
from optselect.configuration import Configuration, Trial
from optselect.report import Run, figures, is_page_of, write_report
from optselect.report.code import as_python
from optselect.report.explanation import claim, speakers
from optselect.report.markup import visible
from optselect.report.page import as_html
from optselect.report.trials import is_chosen, ranked, rungs, short
from optselect.words import format_value
from tests.support.plans import HOSTILE, PLANS

VOID = {"meta", "br"}
ARXIV = re.compile(r"arXiv:(\d{4}\.\d{4,5})")
SOURCES = ("https://arxiv.org/abs/", "https://github.com/")


@dataclass
class Element:
    name: str
    attributes: dict[str, str | None]
    parent: Element | None
    children: list[Element | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def inside(self, name: str) -> bool:
        return self.parent is not None and (self.parent.name == name or self.parent.inside(name))

    def inside_of(self, element: Element) -> bool:
        return self.parent is not None and (self.parent is element or self.parent.inside_of(element))


class Page(HTMLParser):
    """The elements of a page; what is nested wrongly is a failure at once."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.root = self.open = Element("", {}, None)
        self.elements: list[Element] = []
        self.declarations: list[str] = []
        self.feed(page)
        self.close()
        assert self.open is self.root, f"<{self.open.name}> is never closed"

    def handle_decl(self, decl: str) -> None:
        self.declarations.append(decl)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len({name for name, _ in attrs}) == len(attrs), f"<{tag}> has an attribute twice"
        element = Element(tag, dict(attrs), self.open)
        self.elements.append(element)
        self.open.children.append(element)
        if tag not in VOID:
            self.open = element

    def handle_endtag(self, tag: str) -> None:
        assert tag == self.open.name, f"</{tag}> closes <{self.open.name}>"
        assert self.open.parent is not None
        self.open = self.open.parent

    def handle_data(self, data: str) -> None:
        self.open.children.append(data)

    def all(self, *names: str) -> list[Element]:
        return [element for element in self.elements if element.name in names]


@pytest.fixture(scope="module")
def pages() -> dict[str, str]:
    return {name: as_html(plan()) for name, plan in PLANS.items()}


each_plan = pytest.mark.parametrize("name", PLANS)


def words(text: str) -> str:
    return " ".join(text.split())


def cells(row: Element | str) -> list[Element]:
    assert isinstance(row, Element)
    return [cell for cell in row.children if isinstance(cell, Element)]


# --- what it says ---------------------------------------------------------------------------------


def test_the_page_says_what_the_text_says(pages: dict[str, str]) -> None:
    plan = PLANS["searched"]()
    said = words(Page(pages["searched"]).root.text).lower()
    votes = [vote for proposal in plan.proposals for vote in (*proposal.because, *proposal.against)]

    wanted = [
        *(reason.text for reason in plan.reasons),
        *(vote.because.describe() for vote in votes),
        *(text for vote in votes for text in (vote.rule, vote.mechanism, vote.cites, vote.counter)),
        *(trial.configuration.describe() for trial in plan.trials),
        *(f"{value:.4g}" for trial in plan.trials for value in trial.values.values()),
        *(parameter for group in plan.param_groups for parameter in (group.name, *group.parameters)),
        *(format_value(value) for group in plan.param_groups for value in group.hyperparameters.values()),
        *(version for pair in plan.versions.items() for version in pair),
        plan.schedule.describe(),
        f"{plan.lead:.0%}",
        f"{plan.search_steps:,}",
    ]

    assert [each for each in wanted if words(each).lower() not in said] == []


def test_every_trial_has_a_row_and_every_rung_a_column(pages: dict[str, str]) -> None:
    plan = PLANS["searched"]()

    (table,) = [each for each in Page(pages["searched"]).all("table") if "the best of each rung" in each.text]

    head, body = (part for part in table.children[1:] if isinstance(part, Element))
    assert [cell.text for cell in cells(head.children[0])] == [
        "configuration",
        *(f"{rung:,}" for rung in rungs(plan)),
        "time of a step",
        "state",
    ]
    assert [
        cells(row)[0].text.startswith(short(each.configuration.optimizer))
        for row, each in zip(body.children, ranked(plan), strict=True)
    ] == [True] * len(plan.trials)


def test_the_chosen_trial_and_the_baseline_are_marked(pages: dict[str, str]) -> None:
    rows = Page(pages["searched"]).all("tr")

    roles = [row.text for row in rows if any(getattr(each, "name", "") == "th" for each in row.children)]

    assert sum(text.find("chosen") > 0 for text in roles) == 1
    assert sum(text.find("baseline") > 0 for text in roles) == 1


def test_the_code_of_the_page_is_the_code_that_is_tested(pages: dict[str, str]) -> None:
    code = [each.text for each in Page(pages["searched"]).all("code")]

    assert code[0] == as_python(PLANS["searched"]())


def test_a_plan_of_the_users_own_optimizer_has_no_code_to_show(pages: dict[str, str]) -> None:
    page = Page(pages["own"])

    assert page.all("code") == []
    assert "the module's configure_optimizers is the code" in page.root.text


def test_a_scaled_optimizer_of_the_users_own_is_laid_out_by_its_factors(pages: dict[str, str]) -> None:
    text = Page(pages["scaled"]).root.text

    assert "As the module's configure_optimizers builds it; your own optimizer, its learning rate × 2." in text
    assert "factor on your own learning rate" in text


# A vote whose rule is unknown here, as in the hostile plan, is stored without its sources.
@pytest.mark.parametrize("name", [name for name in PLANS if name != "hostile"])
def test_a_stored_plan_gives_the_same_page(name: str, pages: dict[str, str]) -> None:
    stored = OptimizerPlan.from_dict(json.loads(json.dumps(PLANS[name]().to_dict())))

    again = as_html(stored)

    assert again == pages[name]


def test_plots_are_there_for_trials_schedule_and_profile(pages: dict[str, str]) -> None:
    titles = [each.text for each in Page(pages["searched"]).all("h3") if each.inside("figcaption")]

    assert titles == [
        "Learning rate",
        "Learning curves",
        "Schedule",
        "Classes",
        "Gradient, pass by pass",
        "Gradient, layer by layer",
    ]


@pytest.mark.parametrize("name", [name for name in PLANS if name != "extreme"])
def test_every_figure_has_its_plot(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])

    assert [
        each.text for each in page.all("figure") if not [svg for svg in page.all("svg") if svg.inside_of(each)]
    ] == []


def test_numbers_too_far_apart_for_a_plot_stand_in_the_tables(pages: dict[str, str]) -> None:
    page = Page(pages["extreme"])

    without = [each for each in page.all("figure") if not [svg for svg in page.all("svg") if svg.inside_of(each)]]

    assert without
    assert [each for each in without if "too far apart for a plot" not in each.text] == []
    assert "1.7e+308" in page.root.text


def test_a_page_with_plots_leaves_matplotlib_as_it_was() -> None:
    before = dict(mpl.rcParams)

    as_html(PLANS["searched"]())

    assert dict(mpl.rcParams) == before
    # pyplot would keep every figure, and choose a backend.
    assert "matplotlib.pyplot" not in sys.modules or not sys.modules["matplotlib.pyplot"].get_fignums()


def test_the_users_style_of_plots_changes_nothing(pages: dict[str, str]) -> None:
    with mpl.rc_context({"font.size": 30, "lines.linewidth": 9, "svg.fonttype": "path", "axes.grid": False}):
        page = as_html(PLANS["searched"]())

    assert page == pages["searched"]


def test_without_matplotlib_the_numbers_stand_in_tables(monkeypatch: pytest.MonkeyPatch, pages: dict[str, str]) -> None:
    for module in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "matplotlib", None)

    page = Page(as_html(PLANS["searched"]()))

    assert page.all("svg") == []
    assert [len(page.all(each)) for each in ("table", "figure")] == [
        len(Page(pages["searched"]).all(each)) for each in ("table", "figure")
    ]
    assert "pip install 'optselect[report]'" in page.root.text
    assert all("open" in each.attributes for each in page.all("details") if each.inside("figure"))


def test_the_head_says_what_the_choice_is_worth_with_its_error(pages: dict[str, str]) -> None:
    plan = PLANS["searched"]()
    (lead, *_), base = plan.reasons_of("lead"), plan.baseline
    assert base is not None

    (said,) = [each.text for each in Page(pages["searched"]).all("p") if each.attributes.get("class") == "claim"]

    assert said == f"Ahead of {base.describe()}: {lead.text}."
    assert "±" in said


def test_every_paper_that_is_cited_is_a_link_to_it(pages: dict[str, str]) -> None:
    page = Page(pages["unsearched"])
    papers = {number for vote in speakers(PLANS["unsearched"]().proposals) for number in ARXIV.findall(vote.cites)}

    links = {each.attributes["href"] for each in page.all("a") if each.inside("cite")}

    assert papers
    assert {f"https://arxiv.org/abs/{number}" for number in papers} <= links


def test_a_rule_that_is_made_for_another_optimizer_does_not_contradict_its_vote() -> None:
    plan = PLANS["searched"]()
    votes = [(claim(vote, each.optimizer), each.optimizer) for each in plan.proposals for vote in each.because]

    other = set(catalogue.names())

    assert votes
    assert [
        said for said, name in votes if (other & set(re.findall(r"\w+", said))) and name not in re.findall(r"\w+", said)
    ] == []


def test_two_rates_of_an_optimizer_are_no_valley_and_the_last_of_a_line_is_said() -> None:
    plan = PLANS["searched"]()
    chosen = plan.configuration
    own = chosen.rate
    assert own is not None
    trial = Trial(configuration=chosen, values={8: 0.5}, reached=8, state="complete")

    def page(*factors: float) -> str:
        others = (replace(trial, configuration=chosen.at_rate(own * factor)) for factor in factors)
        return as_html(replace(plan, trials=(trial, *others)))

    assert "two such rates alone, which show no valley" in page(0.5)
    assert "the last of its line" in page(0.5, 0.25)
    assert "the last of its line" not in page(0.5, 2.0)


def test_a_line_joins_what_differs_in_the_rate_alone() -> None:
    plan = PLANS["searched"]()
    chosen = plan.configuration
    own = chosen.rate
    assert own is not None
    rates = [chosen.at_rate(own * factor) for factor in (0.5, 1.0, 2.0)]
    other = replace(chosen, schedule=replace(chosen.schedule, warmup_steps=chosen.schedule.warmup_steps + 1))
    mixed = [rates[0], other.at_rate(own), rates[2]]

    def lines(configurations: list[Configuration]) -> int:
        trials = tuple(
            Trial(configuration=each, values={8: 0.5 + at}, reached=8, state="complete")
            for at, each in enumerate(configurations)
        )
        drawn = figures.rates(replace(plan, baseline=None), trials, 8, "rates")
        # A path of three points, that is no tick of an axis.
        return len(re.findall(r'd="M [^"]*? L [^"]*? L [^"z]*?" clip-path', drawn))

    assert (lines(rates), lines(mixed)) == (1, 0)


def test_a_choice_that_is_not_in_the_picture_is_said() -> None:
    plan = PLANS["searched"]()
    chosen = Trial(configuration=plan.configuration, values={16: 0.5}, reached=16, state="complete")
    others = tuple(replace(trial, values={8: 0.5}) for trial in plan.trials if not is_chosen(plan, trial))

    page = as_html(replace(plan, trials=(chosen, *others)))

    assert "The chosen one was judged at other rungs alone" in page


def test_recorded_trainings_like_it_are_shown_with_what_did_best_there() -> None:
    plan = PLANS["unsearched"]()

    said = words(Page(as_html(plan)).root.text)

    assert plan.neighbours
    for each in plan.neighbours:
        assert f"{each.name}{each.family}: {each.summary}{each.weight:.1%}" in said
        assert all(ended.describe() in said for ended in each.best)
    assert ('href="#neighbours">what did best on them' in as_html(plan)) is any(
        "trainings like it were recorded" in reason for reason in plan.reasons
    )


def test_what_was_proposed_and_not_tried_is_named() -> None:
    plan = PLANS["searched"]()
    tried = tuple(trial for trial in plan.trials if trial.configuration.optimizer == plan.optimizer)
    left = {each.optimizer for each in plan.proposals} - {plan.optimizer}

    page = Page(as_html(replace(plan, trials=tried))).root.text

    (said,) = re.findall(r"not tried within the budget: ([\w, ]+)\.", page)
    assert left
    assert set(said.split(", ")) == left


def test_the_run_says_what_was_trained_and_how_it_ended() -> None:
    run = Run(module="Net", data="Digits", folder="runs/7", chosen="2026-01-02 03:04 UTC")
    plan = PLANS["searched"]()

    begun, done = as_html(plan, run), as_html(plan, replace(run, ended="ended after 40 steps", values={"f1": 0.875}))

    assert all(word in begun for word in ("Net", "Digits", "runs/7", "03:04", "not ended when this was written"))
    assert "ended after 40 steps" in done
    assert "0.875" in done


# --- safe -----------------------------------------------------------------------------------------


@each_plan
def test_the_page_needs_no_network_and_runs_nothing(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])

    addresses = [
        value
        for each in page.elements
        for key, value in each.attributes.items()
        if key in ("href", "src", "action", "data", "poster", "srcset") and value and not value.startswith("#")
        # A source that a reader may follow; nothing is fetched for it.
        if not (each.name == "a" and each.inside("cite") and value.startswith(SOURCES))
    ]
    (style,) = page.all("style")
    styles = [style.text, *(each.attributes.get("style") or "" for each in page.elements)]

    assert addresses == []
    assert page.all("script", "link", "iframe", "object", "embed", "img", "base", "form", "foreignobject") == []
    assert [key for each in page.elements for key in each.attributes if key.startswith("on")] == []
    assert [each for each in styles if "@import" in each or re.search(r"url\((?!#)", each)] == []


def test_the_policy_of_the_page_lets_nothing_in(pages: dict[str, str]) -> None:
    policies = [each.attributes.get("content") for each in Page(pages["searched"]).all("meta")]

    assert "default-src 'none'; style-src 'unsafe-inline'" in policies


def test_whatever_a_name_holds_is_text(pages: dict[str, str]) -> None:
    text = Page(pages["hostile"]).root.text

    # In headline, groups, reasons, proposals, votes, rules, trials, profile, plots, code and versions.
    assert text.count("<script>alert('1')</script>") >= 15
    assert visible(HOSTILE).strip() in text


def test_control_characters_come_out_as_a_mark(pages: dict[str, str]) -> None:
    assert re.search(r"[\x00-\x08\x0b-\x1f\x7f]", pages["hostile"]) is None
    assert "\ufffd" in pages["hostile"]


# --- for everybody --------------------------------------------------------------------------------


@each_plan
def test_the_skeleton_of_the_page_is_that_of_a_document(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])
    (html,) = page.all("html")

    assert page.declarations == ["doctype html"]
    assert html.attributes["lang"] == "en"
    assert [len(page.all(each)) for each in ("title", "main", "header", "footer", "nav", "h1")] == [1] * 6
    assert {"utf-8"} <= {each.attributes.get("charset") for each in page.all("meta")}
    assert "width=device-width, initial-scale=1" in [each.attributes.get("content") for each in page.all("meta")]


@each_plan
def test_headings_go_down_one_level_at_a_time(name: str, pages: dict[str, str]) -> None:
    levels = [int(each.name[1]) for each in Page(pages[name]).all("h1", "h2", "h3", "h4")]

    assert levels[0] == 1
    assert [pair for pair in itertools.pairwise(levels) if pair[1] > pair[0] + 1] == []


@each_plan
def test_every_name_is_given_once_and_every_reference_leads_to_one(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])
    names = [value for each in page.elements if (value := each.attributes.get("id"))]
    references = [
        *(value[1:] for each in page.elements if (value := each.attributes.get("href") or "").startswith("#")),
        *(value for each in page.elements if (value := each.attributes.get("aria-labelledby"))),
        *re.findall(r"url\(#([^)]+)\)", pages[name]),
    ]

    assert len(set(names)) == len(names)
    assert set(references) - set(names) == set()


@each_plan
def test_the_first_stop_of_the_keyboard_skips_to_the_content(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])
    first = next(
        each for each in page.elements if each.name in ("a", "summary", "button") or "tabindex" in each.attributes
    )
    (main,) = page.all("main")

    assert first.attributes["href"] == f"#{main.attributes['id']}"


@each_plan
def test_every_plot_says_what_it_shows_to_those_who_do_not_see_it(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])

    said = [(each.attributes.get("role"), each.attributes.get("aria-label") or "") for each in page.all("svg")]

    assert [each for each in said if each[0] != "img" or len(each[1].split()) < 4] == []
    # The numbers: in the figure, or in the table of rungs.
    assert "the best of each rung" in page.root.text or not [h for h in page.all("h3") if h.text == "Learning curves"]
    assert [
        each
        for each in page.all("figure")
        if "Learning curves" not in each.text and not [table for table in page.all("table") if table.inside_of(each)]
    ] == []


@each_plan
def test_every_table_has_a_caption_and_headers_with_a_scope(name: str, pages: dict[str, str]) -> None:
    page = Page(pages[name])

    assert [each for each in page.all("table") if getattr(each.children[0], "name", "") != "caption"] == []
    assert [each for each in page.all("th") if each.attributes.get("scope") not in ("row", "col")] == []
    assert [each for each in page.all("caption") if not each.text.strip()] == []


@each_plan
def test_whatever_scrolls_is_reached_by_keyboard_and_has_a_name(name: str, pages: dict[str, str]) -> None:
    boxes = [each for each in Page(pages[name]).elements if each.attributes.get("class") == "scroll"]

    found = [[each.attributes.get(key) for key in ("tabindex", "role")] for each in boxes]

    assert boxes
    assert found == [["0", "region"]] * len(boxes)
    assert all(each.attributes.get("aria-label") for each in boxes)


# --- colours --------------------------------------------------------------------------------------

CSS = resources.files("optselect.report").joinpath("page.css").read_text("utf-8")


def theme(number: int) -> dict[str, str]:
    """The page's colours: those of the light theme, or those of the dark one."""
    blocks = re.findall(r":root \{(.*?)\}", CSS, flags=re.DOTALL)
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", blocks[number]))


def contrast(one: str, other: str) -> float:
    """The ratio of WCAG 2."""

    def luminance(colour: str) -> float:
        parts = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
        linear = [each / 12.92 if each <= 0.03928 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


# Machado et al. 2009: what linear RGB becomes where one kind of cone is missing.
VISIONS: dict[str, list[list[float]]] = {
    "all cones": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
    "no long": [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]],
    "no middle": [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]],
    "no short": [[1.256, -0.077, -0.179], [-0.078, 0.931, 0.148], [0.005, 0.691, 0.304]],
}


def seen(colour: str, vision: str) -> torch.Tensor:
    """In CIELAB, where a distance of 10 is plain to see."""
    values = torch.tensor([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    linear = torch.where(values <= 0.04045, values / 12.92, ((values + 0.055) / 1.055) ** 2.4)
    linear = (torch.tensor(VISIONS[vision]) @ linear).clamp(0, 1)
    to_xyz = torch.tensor([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    x, y, z = torch.pow(to_xyz @ linear / torch.tensor([0.9505, 1.0, 1.089]), 1 / 3)
    return torch.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)))


@pytest.mark.parametrize("vision", VISIONS)
@pytest.mark.parametrize("theme", [0, 1])
def test_the_colours_of_optimizers_are_told_apart_by_every_eye(theme: int, vision: str) -> None:
    colours = re.findall(r"--series-\d: (#\w{6})", CSS.split("@media")[theme])

    distances = [
        float(torch.dist(seen(one, vision), seen(other, vision))) for one, other in itertools.combinations(colours, 2)
    ]

    assert len(colours) == 8
    assert min(distances) > 10


def test_both_themes_have_the_same_colours_by_name() -> None:
    assert theme(0).keys() == theme(1).keys()
    assert "prefers-color-scheme: dark" in CSS


@pytest.mark.parametrize("number", [0, 1], ids=["light", "dark"])
def test_text_stands_out_by_four_and_a_half_and_lines_of_plots_by_three(number: int) -> None:
    colours = theme(number)
    grounds = [colours[name] for name in ("page", "surface", "tint")]
    texts = [colours[name] for name in ("ink", "muted", "accent")]
    lines = [colour for name, colour in colours.items() if name.startswith("series-")]

    assert min(contrast(text, ground) for text in texts for ground in grounds) >= 4.5
    assert min(contrast(line, ground) for line in lines for ground in grounds[:2]) >= 3


def test_every_colour_is_one_of_the_themes(pages: dict[str, str]) -> None:
    rules = re.sub(r":root \{.*?\}", "", CSS, flags=re.DOTALL)
    styles = " ".join(each.attributes.get("style") or "" for each in Page(pages["searched"]).elements)

    used = set(re.findall(r"var\(--([\w-]+)\)", rules + styles))

    assert re.findall(r"#[0-9a-fA-F]{3,8}\b|rgba?\(", rules + styles) == []
    assert used <= theme(0).keys()


# --- as a file ------------------------------------------------------------------------------------


def test_a_file_is_known_as_the_page_of_its_plan_alone(tmp_path: Path) -> None:
    plan = PLANS["bare"]()
    write_report(plan, tmp_path / "new" / "report.html")

    assert is_page_of(plan, tmp_path / "new" / "report.html")
    assert not is_page_of(replace(plan, search_steps=9), tmp_path / "new" / "report.html")
    assert not is_page_of(plan, tmp_path / "nothing.html")


def test_a_page_that_cannot_be_made_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "report.html"
    write_report(PLANS["bare"](), file)
    before = file.read_text("utf-8")

    def broken(*_: Any) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(Path, "replace", broken)
    with pytest.raises(OSError, match="disk full"):
        write_report(PLANS["unsearched"](), file)

    assert file.read_text("utf-8") == before
    assert [each.name for each in tmp_path.iterdir()] == ["report.html"]


# --- in a browser ---------------------------------------------------------------------------------

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# A page of ours in a frame as wide as a phone, measured from outside.
_FRAME = """<!doctype html>
<body style="margin:0"><iframe src="report.html" style="width:{width}px;height:900px;border:0"></iframe><script>
onload = () => {{
  const page = document.querySelector("iframe").contentDocument;
  const style = getComputedStyle(page.body);
  document.body.dataset.found = JSON.stringify({{
    width: page.documentElement.scrollWidth,
    ground: style.backgroundColor,
    plots: [...page.querySelectorAll("svg")].map(each => each.getBoundingClientRect().height),
  }});
}};
</script></body>"""


def looked_at(folder: Path, page: str, *, width: int, dark: bool = False) -> dict[str, Any]:
    """What headless Chromium makes of `page`."""
    (folder / "report.html").write_text(page, encoding="utf-8")
    (folder / "frame.html").write_text(_FRAME.format(width=width), encoding="utf-8")
    done = subprocess.run(
        [
            str(BROWSER),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--allow-file-access-from-files",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}",
            f"--user-data-dir={folder / 'browser'}",
            "--window-size=1400,1000",
            "--virtual-time-budget=5000",
            "--dump-dom",
            (folder / "frame.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    (body,) = Page(re.sub(r"</?iframe[^>]*>", "", done.stdout)).all("body")
    found: dict[str, Any] = json.loads(body.attributes["data-found"] or "")
    return found


in_a_browser = pytest.mark.skipif(BROWSER is None, reason="no Chromium here: apt-get install chromium")


@in_a_browser
@pytest.mark.parametrize("name", ["searched", "hostile"])
def test_on_a_phone_the_page_does_not_scroll_sideways(name: str, pages: dict[str, str], tmp_path: Path) -> None:
    found = looked_at(tmp_path, pages[name], width=360)

    assert found["width"] <= 360
    assert min(found["plots"]) > 150


@in_a_browser
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_the_page_has_the_colours_of_the_readers_theme(dark: bool, pages: dict[str, str], tmp_path: Path) -> None:
    found = looked_at(tmp_path, pages["bare"], width=1200, dark=dark)

    ground = theme(int(dark))["page"]
    assert found["ground"] == f"rgb({', '.join(str(int(ground[start : start + 2], 16)) for start in (1, 3, 5))})"
