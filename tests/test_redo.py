"""Was this trained before? Asked once the whole run is known, before its first step, and never in the middle of a training."""

from __future__ import annotations

import pytest
from conftest import Scene
from kit import sealed_here
from scripted import GAN, own, plain, runs, train, write

import numb

pytestmark = pytest.mark.usefixtures("warm")

# What is left open is how a script begins, and whether it has the second network.
NETS = f"import sys\n{GAN}x = torch.ones(3, 2)\n"

BUILD = "numb_param({'lr': 0.1})\ng = G()\n"
WORK = "print('begins')\nstep(g, x)\nprint('trained')\n"


def refused(scene: Scene, first: str) -> tuple[int, str, str]:
    return 125, "begins\n", (
        f"numb: {first} was trained with this architecture and these hyperparameters; nothing was trained\n"
        "      try: numb train --again to train it again, or --skip-done to let it be\n"
    )  # fmt: skip


@pytest.mark.parametrize(
    "before",
    [
        pytest.param("with torch.no_grad():\n    g(x)\n", id="forward without gradients"),
        pytest.param(
            "assert (3, 4) == tuple(g(x).shape)\nnn.init.zeros_(g.layer.bias)\ng.load_state_dict(g.state_dict())\n",
            id="forward and initialisation",
        ),
        pytest.param("g.forward(x); g.layer(x); torch.jit.script(g); torch.jit.trace(g, x)\n", id="no call of its own"),
    ],
)
def test_a_second_network_is_waited_for(torch_scene: Scene, before: str) -> None:
    """The generator alone was trained before: a GAN with it trains; the same GAN again does not, and nor does the generator."""
    second = BUILD + before + "d = D()\n"
    _, alone = train(torch_scene, NETS + BUILD + before + WORK)

    done, both = train(torch_scene, NETS + second + WORK)
    again = torch_scene.numb("train")
    write(torch_scene, NETS + BUILD + before + WORK)
    alone_again = torch_scene.numb("train")

    assert (0, "begins\ntrained\n", "") == (done.code, done.stdout, _said(done.stderr))
    assert {"G", "D"} == set(both["models"])
    assert refused(torch_scene, both["id"]) == (again.code, again.stdout, again.stderr)
    assert refused(torch_scene, alone["id"]) == (alone_again.code, alone_again.stdout, alone_again.stderr)


def test_a_hyperparameter_that_is_told_later_is_waited_for(torch_scene: Scene) -> None:
    """An earlier run with fewer hyperparameters is another run, wherever the script tells the rest."""
    train(torch_scene, NETS + BUILD + WORK)

    done, more = train(torch_scene, NETS + BUILD + "numb_param({'decay': 1})\n" + WORK)
    again = torch_scene.numb("train --skip-done")

    assert ("begins\ntrained\n", {"lr": 0.1, "decay": 1}) == (done.stdout, more["params"])
    assert (0, "begins\n", 2) == (again.code, again.stdout, len(runs(torch_scene)))


PLAINLY = {
    "backward": "g(x).sum().backward()",
    "autograd.backward": "torch.autograd.backward(g(x).sum())",
    "a name of the user's for it": "taken_early(g(x).sum())",
    "autograd.grad": "torch.autograd.grad(g(x).sum(), list(g.parameters()))",
    "torch.func": "torch.func.grad(lambda p: torch.func.functional_call(g, p, x).sum())(dict(g.named_parameters()))",
    "forward": "g.forward(x).sum().backward()",
    "a part of it": "g.layer(x).sum().backward()",
    "DataParallel": "nn.DataParallel(g)(x).sum().backward()",
    "TorchScript": "torch.jit.script(g)(x).sum().backward()",
    "a copy": "import copy; copy.deepcopy(g)(x).sum().backward()",
    "a step without backward": "g.layer.weight.grad = torch.ones(4, 2); torch.optim.SGD(g.parameters(), 0.1).step()",
    "a closure": "torch.optim.LBFGS(g.parameters()).step(lambda: (g(x) ** 2).sum())",
    "a thread": "import threading; t = threading.Thread(target=lambda: g(x).sum().backward()); t.start(); t.join()",
    "caught": "try:\n    g(x).sum().backward()\nexcept:\n    pass",
}
COMPILED = {
    "a network": "torch.compile(g, backend='aot_eager', fullgraph=True)(x).sum().backward()",
    "a step": "torch.compile(lambda: g(x).sum().backward(), backend='eager')()",
    "a gradient": "torch.compile(lambda: torch.autograd.grad(g(x).sum(), [g.layer.bias]), backend='aot_eager')()",
}


@pytest.mark.parametrize("works", [PLAINLY, COMPILED], ids=["plainly", "compiled"])
def test_every_training_is_stopped_before_it_begins(torch_scene: Scene, works: dict[str, str]) -> None:
    """However a script takes its first gradient or step: if it was done before, it ends there, with 125."""
    before = "from torch.autograd import backward as taken_early\n" + NETS + BUILD + "print('begins')\n"
    _, first = train(torch_scene, before + "step(g, x)")

    ended = {}
    for name, work in works.items():
        write(torch_scene, f"{before}{work}\nprint('trained')\n")
        done = torch_scene.numb("train")
        ended[name] = done.code, done.stdout, "".join(done.stderr.splitlines(keepends=True)[-2:])

    assert dict.fromkeys(works, refused(torch_scene, first["id"])) == ended
    assert 1 == len(runs(torch_scene))


def test_a_compiled_training_goes_on_as_it_is(torch_scene: Scene) -> None:
    """Where there is nothing to be asked, a network, a step and an optimizer that are compiled train to the same weights."""
    script = """
        net = numb_model((1, 4))(nn.Sequential(nn.Linear(4, 3), nn.Tanh()))
        numb_param({"lr": 0.1})
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        torch.compile(lambda: net(torch.ones(3, 4)).sum().backward(), backend="eager")()
        torch.compile(optimizer.step, backend="eager")()
        torch.compile(net, backend="aot_eager", fullgraph=True)(torch.ones(3, 4)).sum().backward()
        optimizer.step()
        expect(Sequential=net)
        """
    write(torch_scene, script)
    torch_scene.sh("python train.py")
    bare = plain(own(torch_scene))

    done, _ = train(torch_scene, script)

    assert bare == plain(own(torch_scene))
    assert "numb" not in done.stderr.replace(done.stderr.splitlines()[-1], ""), done.stderr


@pytest.mark.parametrize(
    "work",
    [
        pytest.param("with torch.no_grad():\n    g.layer.weight += 1\n", id="without gradients"),
        pytest.param("", id="nothing"),
    ],
)
def test_a_training_that_cannot_be_seen_is_kept_and_told(torch_scene: Scene, work: str) -> None:
    """Weights that change without a gradient: the run is kept as any, and at its end it is said that there was one."""
    _, first = train(torch_scene, NETS + BUILD + work)

    done, second = train(torch_scene, NETS + BUILD + work)

    assert (
        f"numb: {first['id']} had this architecture and these hyperparameters; this run is kept as well"
        in done.stderr.splitlines()
    )
    assert (first["architecture"], "complete") == (second["architecture"], second["status"])


def test_what_comes_after_the_training_has_begun_stops_nothing(torch_scene: Scene) -> None:
    """A network that is built, called or named late: one line that tells the earlier run, and the training goes on."""
    script = NETS + "numb_param({{'lr': {lr}}})\ng = {build}\n" + WORK + "{late}"
    late = {
        "built": ("G()", "d = D()\n"),
        "called": ("G(); d = numb_model(nn.Linear(4, 1))", "step(d, g(x))\n"),
        "told": ("G()", "numb_param({'decay': len('1')})\n"),
    }
    for lr, (build, after) in enumerate(late.values()):
        text = script.format(lr=lr, build=build, late=after)
        _, first = train(torch_scene, text)
        done, second = train(torch_scene, text)

        notice = f"numb: {first['id']} had this architecture and these hyperparameters; the training has begun, so it goes on"
        assert [notice] == [line for line in done.stderr.splitlines() if "had this" in line], done.stderr
        assert ("begins\ntrained\n", first["architecture"]) == (done.stdout, second["architecture"])


def test_a_gradient_that_numb_takes_is_not_the_scripts(torch_scene: Scene) -> None:
    """A network whose forward pass takes a gradient is looked at when it is built, which begins no training."""
    script = """
        class Force(nn.Module):
            @numb_model(torch.ones(1, 2))
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(2, 1)
            def forward(self, x):
                with torch.enable_grad():
                    x = x.detach().requires_grad_()
                    return torch.autograd.grad(self.layer(x).pow(2).sum(), x, create_graph=True)[0]
        numb_param({"lr": 0.1})
        net = Force()
        print("built")
        """
    train(torch_scene, script)

    done, _ = train(torch_scene, script)

    assert "built\n" == done.stdout


def test_nothing_is_left_to_be_seen(torch_scene: Scene) -> None:
    """Networks, parameters and optimizers carry nothing of numb's, and torch is as it was after the first gradient."""
    script = """
        import torch.optim.optimizer as optim
        from torch.nn.modules import module
        engine = torch.autograd._engine_run_backward
        public = torch.autograd.backward, torch.autograd.grad, torch.Tensor.backward, nn.Module.__call__
        net = numb_model((1, 4))(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
        numb_param({"lr": 0.1})
        optimizer = torch.optim.SGD(net.parameters(), 0.1)
        def seen():
            own = [vars(m)[name] for m in net.modules() for name in vars(m) if name.endswith("_hooks")]
            own += [p._backward_hooks for p in net.parameters()] + [p._post_accumulate_grad_hooks for p in net.parameters()]
            everyones = [value for name, value in vars(module).items() if name.startswith("_global_") and "hooks" in name]
            return [hook for hook in [*own, *everyones, optimizer._optimizer_step_pre_hooks] if hook]
        assert not seen() and "__call__" not in vars(type(net)), seen()
        assert public == (torch.autograd.backward, torch.autograd.grad, torch.Tensor.backward, nn.Module.__call__)
        net(torch.randn(5, 4)).pow(2).sum().backward()
        assert torch.autograd._engine_run_backward is engine and not optim._global_optimizer_pre_hooks
        optimizer.step()
        expect(Sequential=net)
        """
    write(torch_scene, script)
    torch_scene.sh("python train.py")
    bare = plain(own(torch_scene))

    train(torch_scene, script)

    assert bare == plain(own(torch_scene))


def test_a_queue_lets_done_entries_be_and_no_others(torch_scene: Scene) -> None:
    """A queue over a GAN is not taken for the generator that was trained alone with the same values."""
    script = NETS + "lr = 0.1\nnumb_queue()\nnumb_param({'lr': lr})\ng = G()\n"
    train(torch_scene, script + WORK)
    write(torch_scene, script + "d = D()\n" + WORK)
    torch_scene.write("q.json", '[{"lr": 0.1}, {"lr": 0.2}]')

    done = torch_scene.numb("queue run q.json")
    torch_scene.write("r.json", '[{"lr": 0.2}]')
    repeated = torch_scene.numb("queue run r.json")

    with sealed_here(torch_scene):
        kept = [row.run for row in numb.open(torch_scene.root).runs()]
    assert (0, 0) == (done.code, repeated.code), done.stderr + repeated.stderr
    assert [(0.1, {"G"}), (0.1, {"G", "D"}), (0.2, {"G", "D"})] == [(run.params["lr"], set(run.models)) for run in kept]
    assert ("begins\ntrained\n" * 2, "begins\n") == (done.stdout, repeated.stdout)


def _said(stderr: str) -> str:
    """What was said of earlier runs."""
    return "".join(line for line in stderr.splitlines(keepends=True) if "these hyperparameters" in line)
