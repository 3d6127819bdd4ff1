"""Networks of every make: each is recognised when it is whole, and its last weights are kept under its plain names."""

from __future__ import annotations

import pytest
from conftest import Scene
from scripted import GAN, architectures, kept, own, plain, runs, train, write

pytestmark = pytest.mark.usefixtures("warm")


def test_every_form_of_the_decorator(torch_scene: Scene) -> None:
    """Above `__init__`, on the class, around an instance, with and without parentheses, and every kind of dummy."""
    done, run = train(
        torch_scene,
        """
        x = torch.ones(1, 4)
        called = []
        def dummy():
            called.append(1)
            return x

        class Base(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 2)
            def forward(self, x):
                return self.layer(x)

        def make(name, decorate, on_class=False):
            def __init__(self):
                nn.Module.__init__(self)
                self.layer = nn.Linear(4, 2)
            made = type(name, (nn.Module,), {"__init__": __init__ if on_class else decorate(__init__), "forward": Base.forward})
            return decorate(made) if on_class else made

        forms = {
            "Tensor": numb_model(x), "Tuple": numb_model((x,)), "Dict": numb_model({"x": x}), "Shape": numb_model(shape=(1, 4)),
            "ShapeTuple": numb_model((1, 4)), "Function": numb_model(dummy), "Nothing": numb_model(), "Bare": numb_model,
        }
        nets = {}
        for name, decorate in forms.items():
            nets[name] = make(name, decorate)()
            nets["On" + name] = make("On" + name, decorate, on_class=True)()
        nets["Instance"] = numb_model(x, name="Instance")(Base())
        nets["BareInstance"] = numb_model(Base())
        nets["BareInstance"].__class__.__name__  # Base
        nets["Base"] = nets.pop("BareInstance")
        for net in nets.values():
            step(net, x)
        expect(**nets)
        print(len(called) > 0)
        """,
    )

    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))
    assert set(own(torch_scene)) == set(run["models"])
    assert "True\n" == done.stdout, "the function that makes a dummy was called"
    assert 1 == len(set(architectures(run).values())), architectures(run)
    assert {"graph"} == {model["rung"] for model in run["models"].values()}


def test_a_network_is_seen_when_its_outermost_constructor_ends(torch_scene: Scene) -> None:
    """Subclasses, mixins, metaclasses, dataclasses and other decorators: the architecture has every layer, once."""
    _, run = train(
        torch_scene,
        """
        import functools
        from dataclasses import dataclass
        x = torch.ones(1, 4)

        class Net(nn.Module):
            @numb_model(x)
            def __init__(self):
                super().__init__()
                self.first = nn.Linear(4, 4)
            def forward(self, x):
                x = self.first(x)
                return self.second(x) if hasattr(self, "second") else x

        class Plain(nn.Module):  # what every one below computes
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 3)
            def forward(self, x):
                return self.b(self.a(x))

        class Sub(Net):
            def __init__(self):
                super().__init__()
                self.second = nn.Linear(4, 3)

        class Decorated(Net):
            @numb_model(torch.ones(1, 4))
            def __init__(self):
                super().__init__()
                self.second = nn.Linear(4, 3)

        @numb_model(x)
        class OnClass(Net):
            def __init__(self):
                super().__init__()
                self.second = nn.Linear(4, 3)

        class Third(Sub):
            pass

        class Registered:
            known = []
            def __init_subclass__(cls, tag=None, **kwargs):
                super().__init_subclass__(**kwargs)
                Registered.known.append((cls.__name__, tag))

        class Adds(nn.Module):
            def __init__(self):
                super().__init__()
                self.second = nn.Linear(4, 3)

        @numb_model(x)
        class Cooperative(nn.Module):  # without an __init__ of its own
            forward = Net.forward

        class Mixed(Cooperative, Registered, Adds, tag="t"):
            def __init__(self):
                super().__init__()
                self.first = nn.Linear(4, 4)

        class Meta(type(nn.Module)):
            def __new__(mcs, name, bases, space):
                init = space["__init__"]
                def wrapped(self):
                    init(self)
                    self.second = nn.Linear(4, 3)
                return super().__new__(mcs, name, bases, {**space, "__init__": wrapped})

        def wrapping(init):
            @functools.wraps(init)
            def wrapped(self):
                return init(self)
            return wrapped

        def careless(init):
            return lambda self: init(self)

        class Wrapped(nn.Module):
            @wrapping
            @numb_model(x)
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
            forward = Net.forward

        class Careless(nn.Module):
            @careless
            @numb_model(x)
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
            forward = Net.forward

        class Below(nn.Module):
            @numb_model(x)
            @wrapping
            def __init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 3)
            forward = Net.forward

        @numb_model(x)
        @dataclass(eq=False)
        class Data(nn.Module):
            width: int = 4
            def __post_init__(self):
                super().__init__()
                self.first, self.second = nn.Linear(4, self.width), nn.Linear(self.width, 3)
            forward = Net.forward

        @dataclass(eq=False)
        class DataSub(Net):
            width: int = 4
            def __post_init__(self):
                super().__init__()
                self.second = nn.Linear(self.width, 3)

        class Slots(Net):
            __slots__ = ("extra",)
            def __init__(self):
                super().__init__()
                self.second = nn.Linear(4, 3)

        class Cached(Net):
            one = None
            def __new__(cls, *args):
                if cls.one is None:
                    cls.one = super().__new__(cls)
                return cls.one
            def __init__(self):
                if "second" not in self.__dict__.get("_modules", {}):
                    super().__init__()
                    self.second = nn.Linear(4, 3)

        class Whole(nn.Module):  # its decorated parts are parts of it
            @numb_model(x)
            def __init__(self):
                super().__init__()
                self.net = Sub()
            def forward(self, x):
                return self.net(x)

        nets = {cls.__name__: cls() for cls in (Sub, Decorated, OnClass, Third, Mixed, Wrapped, Careless, Below, Data,
                                                DataSub, Slots, Whole)}
        nets["Cached"] = Cached()
        assert Cached() is nets["Cached"]
        nets["Plain"] = numb_model(x)(Plain())

        class Made(nn.Module, metaclass=Meta):
            @numb_model()
            def __init__(self):
                super().__init__()
                self.first = nn.Linear(4, 4)
            forward = Net.forward

        nets["Made"] = Made()
        for net in nets.values():
            step(net, x)
        assert Registered.known == [("Mixed", "t")]
        expect(**nets)
        """,
    )

    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))
    assert dict.fromkeys(own(torch_scene), run["models"]["Plain"]["architecture"]) == architectures(run)
    assert [] == run["notes"]


def test_a_decorated_class_is_the_class_it_was(torch_scene: Scene) -> None:
    """Signature, docstring, names, isinstance, pickle, deepcopy and torch.save see no difference; copies are not recorded."""
    _, run = train(
        torch_scene,
        """
        import copy, inspect, io, pickle
        def own(self, width: int = 4, *, bias=True):
            "Build it."
            nn.Module.__init__(self)
            self.layer = nn.Linear(4, width, bias=bias)
        space = {"forward": lambda self, x: self.layer(x), "__module__": __name__, "__qualname__": "Net"}
        own.__name__ = own.__qualname__ = "__init__"
        Plain = type("Net", (nn.Module,), {**space, "__init__": own})
        Above = type("Net", (nn.Module,), {**space, "__init__": numb_model(torch.ones(1, 4))(own)})
        On = numb_model(type("Net", (nn.Module,), {**space, "__init__": own}))
        for Net in (Above, On):
            for see in (inspect.signature, inspect.getdoc, lambda c: c.__init__.__doc__, lambda c: c.__init__.__name__,
                        lambda c: c.__mro__[1:], lambda c: type(c), lambda c: inspect.signature(c.__init__),
                        lambda c: inspect.isfunction(c.__init__), lambda c: sorted(set(vars(c)) - {"__init_subclass__"})):
                assert see(Net) == see(Plain), (see(Net), see(Plain))
            net = Net(3)  # that of `On` waits for its first forward pass
            assert isinstance(net, Net) and type(net) is Net
            copies = [copy.deepcopy(net), pickle.loads(pickle.dumps(net)), copy.copy(net)]
            torch.save(net, buffer := io.BytesIO())
            buffer.seek(0)
            copies.append(torch.load(buffer, weights_only=False))
            for other in copies:
                step(other, torch.ones(1, 4))
                pickle.dumps(other)
                assert type(other) is Net
            step(net, torch.ones(2, 4))
            assert not net._forward_pre_hooks
            if Net is Above:
                first = net
        expect(**{"Net": first, "Net-2": net})
        """,
    )

    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))
    assert {"Net", "Net-2"} == set(run["models"])


def test_one_model_after_another(torch_scene: Scene) -> None:
    """Cross validation in a function: the weights of every fold are kept, and numb keeps no more than one model alive."""
    _, run = train(
        torch_scene,
        """
        import gc, weakref
        class Net(nn.Module):
            @numb_model(torch.ones(1, 4))
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(4, 2)
            def forward(self, x):
                return self.layer(x)

        alive, most, states = weakref.WeakSet(), 0, {}
        def fold(number):
            global most
            torch.manual_seed(number)
            net = Net()
            alive.add(net)
            gc.collect()
            most = max(most, len(alive))
            step(net, torch.randn(3, 4))
            states["Net" if number == 1 else f"Net-{number}"] = {k: v.clone() for k, v in net.state_dict().items()}

        def main():
            for number in range(1, 6):
                fold(number)
        main()
        numb_trial_result({"most": most})
        expect(**states)
        """,
    )

    assert ["Net", "Net-2", "Net-3", "Net-4", "Net-5"] == sorted(run["weights"])
    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))
    assert run["results"]["most"] <= 2
    assert 1 == len(set(architectures(run).values()))


def test_state_that_is_not_plain(torch_scene: Scene) -> None:
    """Wrappers leave no trace in the names; tied weights, buffers, extra state, lazy and scripted modules are kept."""
    done, run = train(
        torch_scene,
        """
        x = torch.ones(2, 4)
        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a = nn.Linear(4, 4)
                self.norm = nn.BatchNorm1d(4)
            def forward(self, x):
                return self.norm(self.a(x))

        def named(name, dummy=x):
            return numb_model(dummy, name=name)(Net())

        class Tied(nn.Module):
            @numb_model(torch.zeros(1, 3, dtype=torch.long))
            def __init__(self):
                super().__init__()
                self.table, self.head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)
                self.head.weight = self.table.weight
            def forward(self, x):
                return self.head(self.table(x))

        class Extra(Net):
            def get_extra_state(self):
                return {"steps": 3, "names": ("a", None, float("inf"))}
            def set_extra_state(self, state):
                pass

        class Lazy(nn.Module):
            @numb_model(x)
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.LazyLinear(3), nn.LazyBatchNorm1d()
            def forward(self, x):
                return self.b(self.a(x))

        parallel = named("parallel")
        step(nn.DataParallel(parallel), x)
        around = numb_model(x, name="around")(nn.DataParallel(Net()))
        step(around, x)
        compiled = named("compiled")
        step(torch.compile(compiled, backend="eager"), x)
        waiting = named("waiting", None)
        step(torch.compile(waiting, backend="eager", fullgraph=True), x)
        outside = numb_model(x, name="outside")(torch.compile(Net(), backend="eager"))
        step(outside, x)
        tied = Tied()
        step(tied, torch.tensor([[1, 2]]))
        extra = numb_model(x)(Extra())
        step(extra, x)
        lazy = Lazy()
        step(lazy, x)
        lazy_waiting = numb_model(name="lazy_waiting")(nn.Sequential(nn.LazyLinear(2)))
        step(lazy_waiting, x)
        scripted = numb_model(x, name="scripted")(torch.jit.script(Net()))
        step(scripted, x)
        scripted_waiting = numb_model(name="scripted_waiting")(torch.jit.script(Net()))
        step(scripted_waiting, x)
        named_inputs = named("named_inputs", None)
        step(named_inputs, x=x)
        never = named("never", None)
        expect(parallel=parallel, around=around.module, compiled=compiled, waiting=waiting, outside=outside._orig_mod, Tied=tied,
               Extra=extra, Lazy=lazy, lazy_waiting=lazy_waiting, scripted=scripted, scripted_waiting=scripted_waiting,
               named_inputs=named_inputs, never=never)
        """,
    )

    ids = architectures(run)
    assert plain(own(torch_scene)) == plain(kept(torch_scene, run))
    assert set(own(torch_scene)) == set(ids)
    same = ("parallel", "around", "compiled", "outside", "Extra", "named_inputs")
    assert dict.fromkeys(same, ids["parallel"]) == {name: ids[name] for name in same}
    why = {name: model["why"] for name, model in run["models"].items() if model["rung"] == "tree"}
    assert dict.fromkeys(("waiting", "scripted_waiting", "never"), "there is no dummy input") == why
    assert ["scripted: no ONNX graph"] == [note.partition(" (")[0] for note in run["notes"]]
    assert "Warning" not in done.stderr and "failed" not in done.stderr


def test_a_model_that_was_changed_after_it_was_built(torch_scene: Scene) -> None:
    """The weights are those of the changed network, the note says that the architecture is not; shown again, it is."""
    build = """
        class Net(nn.Module):
            @numb_model(torch.ones(1, 4))
            def __init__(self, classes=10):
                super().__init__()
                self.body, self.head = nn.Linear(4, 4), nn.Linear(4, classes)
            def forward(self, x):
                return self.head(self.body(x))
        net = Net()
        net.head = nn.Linear(4, 2)
        {again}
        step(net, torch.ones(1, 4))
        expect(Net=net)
        """
    _, noted = train(torch_scene, build.format(again=""))
    weights = plain(own(torch_scene)), plain(kept(torch_scene, noted))
    _, shown = train(torch_scene, build.format(again="net = numb_model(torch.ones(1, 4))(net)"))
    _, right = train(
        torch_scene,
        build.format(again="net = Net(2)").replace("net = Net()", "").replace("net.head = nn.Linear(4, 2)", ""),
    )

    assert weights[0] == weights[1]
    assert [
        "Net was changed after it was built: the architecture is the one that was built, the weights are those of the "
        "changed network. Show numb the changed one instead: net = numb_model(…)(net)"
    ] == noted["notes"]
    assert ([], right["architecture"]) == (shown["notes"], shown["architecture"])
    assert noted["architecture"] != shown["architecture"]
    assert plain(own(torch_scene)) == plain(kept(torch_scene, right))


def test_two_networks_are_one_architecture(torch_scene: Scene) -> None:
    """A GAN's architecture is the set of its networks, in any order; one alone is another, and a copy of one adds nothing."""
    nets = GAN + 'numb_param({{"n": {n}}})\n{build}\nstep(g, torch.ones(3, 2))\nprint("trained")\n'
    _, one = train(torch_scene, nets.format(n=1, build="g, d = G(), D()"))
    _, alone = train(torch_scene, nets.format(n=2, build="g = G()"))
    _, ema = train(torch_scene, nets.format(n=3, build="d, g, g2 = D(), G(), numb_model((1, 2), name='ema')(G())"))
    again = torch_scene.numb("train")

    assert {"G", "D"} == set(one["models"]) == set(one["weights"])
    assert 3 == len({one["architecture"], *architectures(one).values()})
    assert alone["architecture"] == one["models"]["G"]["architecture"]
    assert ({"D", "G", "ema"}, one["architecture"]) == (set(ema["models"]), ema["architecture"])
    assert (125, "") == (again.code, again.stdout)


def test_no_network(torch_scene: Scene) -> None:
    """A script without a network, without any hook, or with a decorated class that it never builds: a run with a note."""
    _, without = train(torch_scene, "numb_param({'lr': 1})")
    _, unbuilt = train(torch_scene, "@numb_model\nclass Net(nn.Module): pass")
    torch_scene.write("train.py", "print('hello')")
    done = torch_scene.numb("train")
    hookless = torch_scene.runs()[-1]

    assert ("complete", {}, {}, []) == tuple(without[k] for k in ("status", "models", "weights", "notes"))
    assert ["numb_model decorates Net, but the script built none"] == unbuilt["notes"]
    assert (0, "hello\n") == (done.code, done.stdout)
    assert ["the script called no hook of numb: no architecture, hyperparameters or weights"] == hookless["notes"]


def test_a_trial_that_cannot_be_filled_is_no_trial(torch_scene: Scene) -> None:
    """Where numb itself fails before the weights are loaded, nothing is evaluated: 125, no output, nothing recorded."""
    script = """
        width = 3
        numb_queue()
        net = numb_model(None)(nn.Linear(4, width))
        step(net, torch.ones(2, 4))
        print("evaluated")
        numb_trial_result({"a": 1})
        """
    _, run = train(torch_scene, script)
    write(torch_scene, script, "trial.py")
    tip = torch_scene.sh("git rev-parse numb")

    for broken in ("watch", "built", "first_inputs", "inject"):
        done = torch_scene.numb("trial", run["id"], env={"NUMB_BREAK_HOOK": broken})

        said = f"numb: {broken} failed (RuntimeError: {broken} was broken on purpose); nothing was evaluated\n"
        assert (125, "", said) == (done.code, done.stdout, done.stderr)
    assert tip == torch_scene.sh("git rev-parse numb")


def test_a_trial_without_the_chosen_weights_has_no_result(torch_scene: Scene) -> None:
    """A network that numb does not know, or that waits for a call that never comes: 125 where the result would be kept."""
    _, run = train(torch_scene, "net = numb_model(nn.Linear(4, 2)); step(net, torch.ones(2, 4))")
    build = "print('evaluated'); numb_trial_result({'a': net.forward(torch.ones(2, 4)).sum().item()}); print('kept')"

    said = []
    for net in ("nn.Linear(4, 2)", "numb_model(nn.Linear(4, 2))"):
        write(torch_scene, f"net = {net}\n{build}\n", "trial.py")
        done = torch_scene.numb("trial", run["id"])
        assert (125, "evaluated\n") == (done.code, done.stdout)
        said.append(done.stderr)

    assert [
        "numb: the script built no network that numb knows, so nothing has got the chosen weights\n"
        "      try: write @numb_model(dummy) above the network's __init__\n",
        "numb: Linear was not called, so it has not got the chosen weights\n      try: give numb_model a dummy input\n",
    ] == said
    assert [] == torch_scene.runs()[-1]["trials"]


def test_a_trial_that_does_not_fit_names_everything_at_once(torch_scene: Scene) -> None:
    """Missing, unexpected and mismatched entries are named together; nothing is evaluated or recorded, code 125."""
    net = """
        class Net(nn.Module):
            @numb_model(torch.ones(1, 4))
            def __init__(self):
                super().__init__()
                {buffers}
            def forward(self, x):
                return x * 2
        net = Net()
        print("evaluated")
        numb_trial_result({{"a": 1}})
        """
    _, run = train(
        torch_scene,
        net.format(
            buffers="self.register_buffer('gone', torch.zeros(1)); self.register_buffer('size', torch.zeros(2))"
        ),
    )
    write(
        torch_scene,
        net.format(buffers="self.register_buffer('new', torch.zeros(1)); self.register_buffer('size', torch.zeros(3))"),
        "trial.py",
    )
    tip = torch_scene.sh("git rev-parse numb")

    done = torch_scene.numb("trial", run["id"])

    assert (125, "") == (done.code, done.stdout)
    assert (
        "numb: the saved weights do not fit the model: 1 missing: new; 1 unexpected: gone; 1 different: size is float32 (3,) "
        "in the model and float32 (2,) in the weights\n      try: numb list shows each architecture\n"
    ) == done.stderr
    assert tip == torch_scene.sh("git rev-parse numb")


def test_a_trial_fills_each_network_by_its_name(torch_scene: Scene) -> None:
    """Teacher and student, of one class and one architecture, get the weights that each of them had."""
    script = """
        class Net(nn.Module):
            @numb_model(torch.ones(1, 2))
            def __init__(self):
                super().__init__()
                self.layers = nn.Sequential(*(nn.LayerNorm(2) for _ in range(9)))
            def forward(self, x):
                return self.layers(x)
        class Small(nn.Module):
            @numb_model(torch.ones(1, 2))
            def __init__(self):
                super().__init__()
                self.layer = nn.Linear(2, 2)
            def forward(self, x):
                return self.layer(x)
        torch.manual_seed(SEED)
        net = Net()
        teacher = numb_model(torch.ones(1, 2), name="teacher")(Small())
        student = numb_model(torch.ones(1, 2), name="student")(Small())
        """
    _, run = train(
        torch_scene,
        script.replace("SEED", "1")
        + """
        net.layers[7].weight.data.fill_(7)
        expect(Net=net, teacher=teacher, student=student)
        """,
    )
    write(
        torch_scene,
        script.replace("SEED", "2")
        + """
        expect(Net=net, teacher=teacher, student=student)
        numb_trial_result({"seven": net.layers[7].weight[0]})
        """,
        "trial.py",
    )
    trained = plain(own(torch_scene))

    done = torch_scene.numb("trial", run["id"])

    assert 0 == done.code, done.stderr
    assert {"Net", "teacher", "student"} == set(trained) == set(run["models"]) == set(run["weights"])
    assert trained == plain(own(torch_scene))
    assert {"seven": 7.0} == torch_scene.runs()[-1]["results"]


def test_a_trial_that_changes_its_weights_is_told(torch_scene: Scene) -> None:
    """A training, or a BatchNorm in training mode, makes other weights of those that were chosen: a note says which."""
    build = """
        net = numb_model(torch.ones(1, 4), name="Net")(nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3)))
        {work}
        numb_trial_result({{"a": 1}})
        """
    work = {
        "net.eval()(torch.ones(3, 4)); net.train()": [],
        "with torch.no_grad(): net(torch.randn(3, 4))": [
            "the weights of Net changed during the trial (1.running_mean, 1.running_var, 1.num_batches_tracked), so its "
            "results are not those of {run}: call eval() on the network before it is evaluated"
        ],
        "step(net.eval(), torch.ones(3, 4))": [
            "the weights of Net changed during the trial (0.weight, 0.bias, 1.weight, 1.bias), so its results are not those "
            "of {run}: train in the train script"
        ],
        "net.eval()[0].bias.data.add_(1)": [
            "the weights of Net changed during the trial (0.bias), so its results are not those of {run}: train in the "
            "train script"
        ],
    }
    _, run = train(torch_scene, build.format(work="step(net, torch.randn(5, 4))"))

    for line in work:
        write(torch_scene, build.format(work=line), "trial.py")
        done = torch_scene.numb("trial", run["id"])
        assert 0 == done.code, done.stderr

    trials = runs(torch_scene)[0]["trials"]
    assert [[note.format(run=run["id"]) for note in notes] for notes in work.values()] == [t["notes"] for t in trials]
    assert [{"a": 1}] * len(work) == [t["results"] for t in trials]
