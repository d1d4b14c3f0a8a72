import basicsr  # noqa: F401
import pytest
import torch

from gramgan_plugin.errors import OptionError
from gramgan_plugin.models.compilation import Compilation


class TestCompilation:
    @pytest.mark.parametrize("train", [{}, {"compile": False, "compile_networks": ["g"], "compile_mode": "default"}])
    def test_off(self, train):
        net = torch.nn.Linear(2, 2)
        Compilation(train).apply("g", net)
        assert net._compiled_call_impl is None

    def test_what_is_compiled(self):
        net = torch.nn.Linear(2, 2)
        compilation = Compilation({"compile": True, "compile_networks": ["g"], "compile_backend": "eager"})
        compilation.apply("d", net)
        assert net._compiled_call_impl is None
        compilation.apply("g", net)
        assert net._compiled_call_impl is not None
        assert list(net.state_dict()) == ["weight", "bias"]
        assert Compilation({"compile": True}).networks == ("g", "d", "vgg")

    def test_how_it_is_compiled(self, monkeypatch):
        calls = []
        monkeypatch.setattr(torch.nn.Linear, "compile", lambda self, **arguments: calls.append(arguments))
        monkeypatch.setattr(torch._functorch.config, "donated_buffer", True)
        asked = {"mode": "default", "backend": "eager"}
        Compilation({f"compile_{key}": value for key, value in asked.items()}).apply("g", torch.nn.Linear(2, 2))
        assert calls == []
        assert torch._functorch.config.donated_buffer
        options = {"compile": True} | {f"compile_{key}": value for key, value in asked.items()}
        Compilation(options).apply("g", torch.nn.Linear(2, 2))
        assert calls == [asked]
        assert not torch._functorch.config.donated_buffer, "one graph, several backward passes"

    @pytest.mark.parametrize(
        ("train", "message"),
        [
            ({"compile_networks": ["gg"]}, r"^train.compile_networks: expected one of g, d, vgg, not 'gg'"),
            ({"compile_mode": "reduce-overhead"}, r"^train.compile_mode: expected one of default, max-autotune-no-cud"),
            ({"compile_backend": "inducter"}, r"^train.compile_backend: .* not 'inducter'; did you mean 'inductor'\?$"),
        ],
    )
    def test_exception(self, train, message):
        with pytest.raises(OptionError, match=message):
            Compilation(train)
