"""What the page shows of a picture and of changes to it."""

import msgspec
from playwright.async_api import expect

from tests.browser.conftest import Serve, Visit
from tests.browser.pictures import gpu, node, picture, share, waiting

CHAT = share("chat", 16, used_gib=11.25)
TRAIN = share("train", 8, namespace="research", used_gib=9)


async def test_every_gpu_is_a_bar_with_a_slice_for_each_pod(serve: Serve, visit: Visit) -> None:
    first = node("node-1", gpu("GPU-a", CHAT, TRAIN), gpu("GPU-b", index=1))
    server = await serve(picture(first, node("node-2", gpu("GPU-c", share("asr", 3, seats=1)))))
    page = await visit(server.url)
    nodes = page.get_by_role("list", name="Nodes")
    label = "node node-1, 2 × NVIDIA A100-SXM4-40GB, 56 GiB free"
    await expect(nodes.get_by_role("button", name=label)).to_be_visible()
    bars = page.get_by_role("list", name="GPUs of node-1")
    await expect(bars.locator(".gpu")).to_have_count(2)
    label = "GPU 0 of node-1, NVIDIA A100-SXM4-40GB, 24 of 40 GiB taken, 20.3 GiB used, 16 GiB free, 0 of 4 seats"
    await expect(bars.get_by_role("button", name=label)).to_be_visible()
    slice_ = bars.get_by_role("button", name="team-a/chat, 16 GiB granted, 11.3 GiB used, on the GPU")
    await expect(slice_).to_have_text("chat16 GiB · 11.3 GiB used · team-a")
    track = await bars.locator(".track").first.bounding_box()
    box = await slice_.bounding_box()
    assert track is not None
    assert box is not None
    assert abs(box["width"] / track["width"] - 16 / 40) < 0.01  # a slice is as wide as its part of the GPU
    await expect(page.get_by_role("button", name="team-a/asr, 3 GiB granted, use not measured, 1 seat")).to_be_visible()


async def test_who_uses_more_than_granted_is_told_in_words_too(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(picture(node("node-1", gpu("GPU-a", TRAIN))))).url)
    slice_ = page.get_by_role("button", name="research/train, 8 GiB granted, 9 GiB used, more than granted")
    await expect(slice_.locator(".amount")).to_contain_text("⚠")


async def test_totals_are_sums_over_the_cluster(serve: Serve, visit: Visit) -> None:
    ill = gpu("GPU-c", product="Tesla T4", memory=15360, problem="Xid 79: the GPU has fallen off the bus")
    shown = picture(
        node("node-1", gpu("GPU-a", CHAT), gpu("GPU-b", index=1)), node("node-2", ill), waits=[waiting("late")]
    )
    page = await visit((await serve(shown)).url)
    totals = page.get_by_label("Totals")
    await expect(totals.locator(".tile-gpus")).to_have_text("GPUs3on 2 nodes")
    await expect(totals.locator(".tile-memory")).to_contain_text("17 %16 of 95 GiB")
    await expect(totals.locator(".tile-used")).to_contain_text("11.3 GiB")
    await expect(totals.locator(".tile-free")).to_have_text("Free64 GiBin 2 pieces, the largest 40 GiB")
    await expect(totals.locator(".tile-waiting .value")).to_have_text("1")
    await expect(totals.locator(".tile-unhealthy .value")).to_have_text("1")


async def test_room_counts_pods_that_fit_on_one_gpu_each(serve: Serve, visit: Visit) -> None:
    shown = picture(node("node-1", *[gpu(f"GPU-{i}", share(f"pod-{i}", 30), index=i) for i in range(4)]))
    page = await visit((await serve(shown)).url)
    room = page.locator("#room")  # 4 pieces of 10 GiB
    await expect(room.get_by_role("row", name="8 GiB", exact=False).first).to_contain_text("4 ×")
    await expect(room.get_by_role("row").filter(has_text="16 GiB")).to_contain_text("0 ×")
    await expect(room.get_by_role("row").filter(has_text="80 GiB")).to_be_hidden()  # no GPU is that large


async def test_waiting_pods_have_their_reasons(serve: Serve, visit: Visit) -> None:
    waits = [
        waiting("too-large", reason="needs 48 GiB on one GPU; the largest free piece is 40 GiB"),
        waiting("tainted", reason="node-1 has room", says="1 node had an untolerated taint", has_room=True),
    ]
    page = await visit((await serve(picture(node("node-1", gpu("GPU-a")), waits=waits))).url)
    listed = page.locator("#waiting li")
    await expect(listed.filter(has_text="team-a/too-large")).to_contain_text("needs 48 GiB on one GPU; the largest")
    # fracgpu has room, so what keeps the pod away is shown without being asked for.
    await expect(page.get_by_text("1 node had an untolerated taint")).to_be_visible()


async def test_how_long_a_pod_has_waited_goes_on(serve: Serve, visit: Visit) -> None:
    server = await serve(picture(node("node-1", gpu("GPU-a")), waits=[waiting("late")]))
    page = await visit(server.url)
    await page.clock.install(time="2026-01-05T10:05:00Z")
    await page.reload()
    await expect(page.locator(".tile-waiting")).to_contain_text("the longest for 5 min")
    await page.clock.run_for(25 * 60_000)
    await expect(page.locator(".tile-waiting")).to_contain_text("the longest for 30 min")
    await expect(page.locator("#waiting time")).to_have_text("30 min")


async def test_of_many_waiting_pods_the_first_are_shown_and_more_on_demand(serve: Serve, visit: Visit) -> None:
    waits = [waiting(f"job-{number}") for number in range(130)]
    page = await visit((await serve(picture(node("node-1", gpu("GPU-a")), waits=waits))).url)
    await expect(page.locator("#waiting li")).to_have_count(50)
    await page.get_by_role("button", name="Show 50 more of 130").click()
    await page.get_by_role("button", name="Show 30 more of 130").click()
    await expect(page.locator("#waiting li")).to_have_count(130)


async def test_changes_show_without_a_reload(serve: Serve, visit: Visit) -> None:
    server = await serve(picture(node("node-1", gpu("GPU-a")), node("node-2", gpu("GPU-b"))))
    page = await visit(server.url)
    await expect(page.locator("[data-pod]")).to_have_count(0)
    server.change(node("node-1", gpu("GPU-a", CHAT)), node("node-10", gpu("GPU-c")), waiting=[waiting("late")])
    await expect(page.locator("[data-pod]")).to_have_text(["chat16 GiB · 11.3 GiB used · team-a"])
    await expect(page.locator(".node .name")).to_have_text(["node-1", "node-2", "node-10"])
    await expect(page.locator("#waiting li")).to_contain_text("team-a/late")
    server.change(node("node-1", gpu("GPU-a", share("chat", 16, state="ending"))), gone=["node-2"])
    await expect(page.locator("[data-pod]")).to_have_text(["chat16 GiB · ending · team-a"])
    await expect(page.locator(".node .name")).to_have_text(["node-1", "node-10"])
    await expect(page.locator("#waiting li")).to_have_count(1)  # null says that nothing changed there
    server.change(node("node-1", gpu("GPU-a")), waiting=[])
    await expect(page.locator("[data-pod]")).to_have_count(0)
    await expect(page.get_by_text("No pod waits.")).to_be_visible()


async def test_a_change_touches_only_the_node_that_changed(serve: Serve, visit: Visit) -> None:
    nodes = [node(f"node-{number}", gpu(f"GPU-{number}", share(f"pod-{number}", 4))) for number in range(5)]
    server = await serve(picture(*nodes))
    page = await visit(server.url)
    await page.evaluate(
        """() => {
          window.touched = new Set();
          new MutationObserver((records) => {
            for (const { target } of records) {
              const element = target.nodeType === 1 ? target : target.parentElement;
              window.touched.add(element.closest(".node")?.dataset.node ?? element.id);
            }
          }).observe(document.getElementById("nodes"),
            { subtree: true, childList: true, attributes: true, characterData: true });
        }"""
    )
    server.change(node("node-3", gpu("GPU-3", share("pod-3", 4), share("new", 4))))
    await expect(page.locator("[data-pod]")).to_have_count(6)
    assert await page.evaluate("() => [...window.touched]") == ["node-3"]


async def test_details_follow_what_happens(serve: Serve, visit: Visit) -> None:
    server = await serve(picture(node("node-1", gpu("GPU-a", CHAT))))
    page = await visit(server.url)
    await page.locator("[data-pod]").click()
    details = page.get_by_role("dialog", name="team-a/chat")
    await expect(details).to_contain_text("11.3 GiB")
    await expect(details).to_contain_text("uid-team-a-chat")
    server.change(node("node-1", gpu("GPU-a", share("chat", 16, used_gib=15))))
    await expect(details).to_contain_text("15 GiB")
    server.change(node("node-1", gpu("GPU-a")))
    await expect(details).to_contain_text("This pod is no longer on this GPU.")
    server.change(gone=["node-1"])
    await expect(page.get_by_role("dialog")).to_contain_text("This node is no longer in the cluster.")


async def test_names_are_shown_as_text_whatever_they_are(serve: Serve, visit: Visit) -> None:
    evil = '"><img src=x onerror="window.hurt=1"><script>window.hurt=1</script>&amp;'
    pod = share(evil, 16, namespace=evil, containers=[evil])
    shown = picture(
        node(evil, gpu(evil, pod, product=evil), gpu("GPU-b", index=1, product=evil, problem=evil), problem=evil),
        waits=[waiting(evil, namespace=evil, reason=evil, says=evil)],
    )
    page = await visit((await serve(shown)).url)
    await expect(page.locator(".node .name")).to_have_text(evil)
    await expect(page.locator("[data-pod] .pod")).to_have_text(evil)
    await expect(page.locator("#waiting .reason")).to_have_text(evil)
    await page.locator("[data-pod]").click()
    await expect(page.get_by_role("dialog").get_by_role("heading").first).to_have_text(f"{evil}/{evil}")
    await page.get_by_label("Model").select_option(evil)
    await expect(page.locator(".gpu")).to_have_count(2)
    await page.reload()  # now it is in the address
    await expect(page.get_by_label("Model")).to_have_value(evil)
    assert await page.evaluate("() => window.hurt") is None
    assert await page.locator("main img, main script").count() == 0


async def test_a_cluster_without_gpus_says_what_is_missing(serve: Serve, visit: Visit) -> None:
    page = await visit((await serve(picture())).url)
    await expect(page.get_by_text("No node has told of GPUs yet")).to_be_visible()


async def test_an_odd_state_of_a_newer_extender_is_shown_as_it_is(serve: Serve, visit: Visit) -> None:
    odd = msgspec.structs.replace(CHAT, state="resting")
    page = await visit((await serve(picture(node("node-1", gpu("GPU-a", odd))))).url)
    await expect(page.locator("[data-pod]")).to_contain_text("resting")
