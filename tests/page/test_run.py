"""The page of a run: its views, its task and log, what can be done with it, and its moments."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from runstream.client import Run
from tests.page.conftest import Site

if TYPE_CHECKING:
    from playwright.async_api import Page

FAILING = r"""
runs:
  - name: checks
    tasks:
      - {name: clone, runtime: {type: host}, steps: [{run: echo cloned}]}
      - name: unit
        depends: [clone]
        runtime: {type: host}
        steps:
          - run: seq 3
          - {run: {name: test, command: "printf 'before\n\\033[31mred <b>line</b>\\033[0m\n'; exit 3"}}
      - {name: lint, depends: [clone], runtime: {type: host}, steps: [{run: echo linted}]}
      - {name: wheel, depends: [unit, lint], runtime: {type: host}, steps: [{run: echo built}]}
"""
APPROVAL = """
runs:
  - name: release
    tasks:
      - {name: build, runtime: {type: host}, steps: [{run: echo built}]}
      - {name: deploy, depends: [build], approval: true, runtime: {type: host}, steps: [{run: echo deployed}]}
"""


async def failed(site: Site) -> Run:
    """Return a run whose task `unit` failed."""
    return await site.finished(FAILING, "/project/failing/branch/main")


async def test_a_failing_run_leads_in_two_clicks_to_the_failing_line(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto("/ui/")
    await tab.locator(f'a[href="/ui/runs/{run.id}"]').click()
    await tab.get_by_role("heading", name="unit").wait_for()
    line = tab.get_by_role("log").get_by_text("red <b>line</b>")
    await line.wait_for()
    assert await line.evaluate("one => one.classList.contains('f-c1')")
    await tab.get_by_label("Line 2", exact=True).click()
    assert tab.url.endswith("#L2")
    await tab.reload()
    await tab.locator("#L2.chosen").wait_for()


async def test_graph_timeline_and_table_show_the_same_tasks_and_one_selection(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto(f"/ui/runs/{run.id}?view=graph")
    tasks = tab.get_by_role("region", name="Tasks", exact=True)
    await tasks.get_by_role("link", name="lint: Success").click()
    await tab.get_by_role("heading", name="lint").wait_for()
    for view in ("Timeline", "Table", "Graph"):
        await tab.get_by_role("button", name=view).click()
        assert await tasks.get_by_role("link").count() == 4
        selected = tasks.locator('[aria-current="true"], [aria-selected="true"]')
        await selected.get_by_text("lint", exact=True).wait_for()


async def test_the_table_has_room_for_the_names_of_tasks(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto(f"/ui/runs/{run.id}?view=table")
    name = tab.get_by_role("region", name="Tasks", exact=True).get_by_role("link", name="clone")
    await name.wait_for()
    for width in (1440, 1100, 390):
        await tab.set_viewport_size({"width": width, "height": 900})
        box = await name.bounding_box()
        assert box is not None
        assert box["width"] > 60, width


async def test_keys_go_from_task_to_task_and_from_step_to_step(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto(f"/ui/runs/{run.id}")
    await tab.get_by_role("heading", name="unit").wait_for()
    await tab.keyboard.press("p")
    await tab.get_by_role("log").get_by_text("3", exact=True).last.wait_for()
    await tab.keyboard.press("k")
    await tab.get_by_role("heading", name="lint").wait_for()
    await tab.keyboard.press("f")
    await tab.get_by_role("heading", name="unit").wait_for()
    node = tab.locator(".node[aria-current]")
    await node.focus()
    await tab.keyboard.press("ArrowLeft")
    await tab.keyboard.press("Enter")
    await tab.get_by_role("heading", name="clone").wait_for()


async def test_a_run_is_watched_live_and_approved(tab: Page, site: Site) -> None:
    run = await site.run(APPROVAL, "/project/approved/branch/main")
    await tab.goto(f"/ui/runs/{run.id}?task=deploy")
    await tab.evaluate("window.same = true")
    await tab.locator("[data-reason=approval]").wait_for()
    await tab.get_by_role("button", name="Approve deploy").click()
    await tab.locator(".run-title [data-state=success]").wait_for()
    await tab.get_by_role("log").get_by_text("deployed").wait_for()
    await tab.get_by_text("Approved by").wait_for()
    await tab.locator(".run-head dd").filter(has_text=re.compile("by admin$")).wait_for()
    assert await tab.evaluate("window.same")


async def test_stopping_asks_first(tab: Page, site: Site) -> None:
    run = await site.run(APPROVAL, "/project/stopped/branch/main")
    await tab.goto(f"/ui/runs/{run.id}")
    await tab.get_by_role("button", name="Approve deploy").wait_for()
    await tab.get_by_role("button", name="Stop").click()
    await tab.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert (await site.client.runs.get(run.id)).phase == "running"
    await tab.get_by_role("button", name="Stop").click()
    await tab.get_by_role("dialog").get_by_role("button", name="Stop run").click()
    await tab.locator(".run-title [data-state=stopped]").wait_for()


async def test_what_did_not_succeed_is_restarted(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto(f"/ui/runs/{run.id}")
    await tab.get_by_role("button", name="Restart").click()
    await tab.get_by_role("menuitem", name="What did not succeed").click()
    await tab.wait_for_url(re.compile(rf"/ui/runs/(?!{run.id})"))
    await tab.get_by_text("Restarts", exact=True).wait_for()
    await tab.locator(".run-title [data-state=failed]").wait_for()
    await tab.get_by_role("link", name="clone: Success").get_by_text("kept").wait_for()


async def test_chosen_tasks_are_previewed_and_restarted(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto(f"/ui/runs/{run.id}")
    await tab.get_by_role("button", name="Restart").click()
    await tab.get_by_role("menuitem", name="Choose tasks").click()
    await tab.get_by_text("2 tasks run again, 2 tasks are kept.").wait_for()
    await tab.get_by_role("button", name="Chosen tasks").click()
    await tab.get_by_role("checkbox", name="lint").check()
    await tab.get_by_text("1 task runs again, 3 tasks are kept.").wait_for()
    await tab.get_by_role("link", name="lint: Waiting").wait_for()
    await tab.get_by_role("checkbox", name="and the tasks that depend on them").check()
    await tab.get_by_text("2 tasks run again, 2 tasks are kept.").wait_for()
    await tab.get_by_role("button", name="Restart").click()
    await tab.wait_for_url(re.compile(rf"/ui/runs/(?!{run.id})"))
    await tab.get_by_text("chosen tasks").wait_for()
    await tab.get_by_role("link", name="clone: Success").get_by_text("kept").wait_for()


async def test_a_comparison_with_the_last_green_run_names_the_change(tab: Page, site: Site) -> None:
    group = "/project/compared/branch/main"
    await site.finished(FAILING.replace("exit 3", "exit 0"), group)
    run = await site.finished(FAILING, group)
    await tab.goto(f"/ui/runs/{run.id}")
    await tab.get_by_role("button", name="More").click()
    await tab.get_by_role("menuitem", name="Compare with another run").click()
    changed = tab.get_by_role("row").filter(has_text="command")
    await changed.get_by_text("exit 0").wait_for()
    await changed.get_by_text("exit 3").wait_for()
    await tab.goto(f"/ui/runs/{run.id}")
    await tab.get_by_role("slider").focus()
    await tab.keyboard.press("Home")
    await tab.get_by_role("link", name="Compare with now").click()
    outcome = tab.get_by_role("row").filter(has_text="unit")
    await outcome.filter(has_text="status").get_by_text("failed").wait_for()


async def test_an_earlier_moment_shows_earlier_states_and_a_link_opens_it_again(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto(f"/ui/runs/{run.id}?view=graph&task=unit")
    await tab.get_by_role("link", name="unit: Failed").wait_for()
    slider = tab.get_by_role("slider", name="Moment of the run")
    await slider.focus()
    await tab.keyboard.press("Home")
    await tab.get_by_role("link", name="unit: Waiting").wait_for()
    await tab.get_by_text(re.compile("^as of ")).wait_for()
    assert await tab.get_by_role("button", name="Restart").count() == 1
    assert "at=" in tab.url
    states = []
    while "at=" in tab.url:
        states.append(await tab.locator(".node", has_text="unit").get_attribute("aria-label"))
        await tab.keyboard.press("ArrowRight")
    assert [one for index, one in enumerate(states) if states[index - 1 : index] != [one]] == [
        "unit: Waiting",
        "unit: Running",
        "unit: Failed",
    ]
    await tab.keyboard.press("[")
    await tab.keyboard.press("[")
    address, pictures = tab.url, []
    for _ in range(2):
        await tab.goto("/ui/")
        await tab.goto(address)
        await tab.locator(".run-page.past .node").first.wait_for()
        pictures.append(await tab.locator(".graph").inner_text())
    assert pictures[0] == pictures[1]
    await tab.get_by_role("button", name="Back to the end").click()
    await tab.get_by_role("link", name="unit: Failed").wait_for()


async def test_a_log_is_clipped_at_the_moment_and_a_link_to_its_line_opens_the_same_picture(
    tab: Page, site: Site
) -> None:
    config = APPROVAL.replace("echo built", "echo first; sleep 0.6; echo second")
    run = await site.run(config, "/project/clipped/branch/main")
    await tab.goto(f"/ui/runs/{run.id}?task=build&step=0")
    log = tab.get_by_role("log")
    await log.get_by_text("second").wait_for()
    task = next(one.id for one in run.tasks.values() if one.name == "build")
    before_second = await tab.evaluate(
        "log => fetch(`/api/v1alpha/logs/lines?${log}`).then(answer => answer.json())"
        ".then(({lines}) => new Date(Date.parse(lines[1].time) - 1).toISOString())",
        f"runid={run.id}&taskid={task}&step=0",
    )
    await site.client.runs.stop(run.id)
    await tab.goto(f"/ui/runs/{run.id}?task=build&step=0&at={before_second}")
    await log.get_by_text("first").wait_for()
    await tab.get_by_text("As of the moment shown").wait_for()
    assert await log.locator(".line").all_inner_texts() == ["first"]
    await tab.get_by_label("Line 1", exact=True).click()
    address, pictures = tab.url, []
    assert "at=" in address
    assert address.endswith("#L1")
    for _ in range(2):
        await tab.goto("/ui/")
        await tab.goto(address)
        await tab.locator("#L1.chosen").wait_for()
        await tab.get_by_text(re.compile("^as of ")).wait_for()
        assert await log.locator(".line").all_inner_texts() == ["first"]
        pictures.append(await tab.locator(".split, .past-words").all_inner_texts())
    assert pictures[0] == pictures[1]
    await tab.get_by_role("button", name="Back to").click()
    await log.get_by_text("second").wait_for()


async def test_events_of_a_run_say_what_each_changed_and_why(tab: Page, site: Site) -> None:
    run = await failed(site)
    await tab.goto(f"/ui/runs/{run.id}/events?task=unit")
    rows = tab.locator(".commit")
    await rows.filter(has_text="task assigned").get_by_text("task assigned").click()
    await tab.get_by_role("heading", name="Cause").wait_for()
    await tab.locator(".causes").get_by_text("task").first.wait_for()
    await rows.filter(has_text="task started").first.click()
    await tab.get_by_role("row").filter(has_text="unit / status").get_by_text("running").wait_for()


async def test_hostile_names_and_lines_are_text(tab: Page, site: Site) -> None:
    name = "<script>alert(1)</script>" + "ש" * 8
    config = FAILING.replace("name: checks", f'name: "{name}"').replace("before", r"be\\342\\200\\256fore")
    run = await site.finished(config, "/project/hostile/branch/main")
    for path in ("", "/events", "/log/unit/1"):
        await tab.goto(f"/ui/runs/{run.id}{path}")
        await tab.get_by_role("heading").filter(has_text=name).wait_for()
    await tab.get_by_role("log").get_by_text(r"be\u202efore").wait_for()


async def test_a_run_that_does_not_exist_says_so(tab: Page, errors: object) -> None:
    from tests.page.browser import Errors

    assert isinstance(errors, Errors)
    errors.expect("status of 404")
    await tab.goto("/ui/runs/00000000-0000-4000-8000-000000000000")
    await tab.get_by_role("alert").get_by_text("does not exist").wait_for()
