from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agentroute.errors import ErrorConfig
from agentroute_ipython.arguments import OPTIONS, Arguments, Options, option_lines, parse, parse_filters

THE_LINE = "support --model anthropic/claude-sonnet-4 --tools order_status,refund --max-cost 0.25"


def mistake(line: str, text_follows: bool = False) -> str:
    with pytest.raises(ErrorConfig) as caught:
        parse(line, text_follows=text_follows)
    return str(caught.value)


def test_line_of_the_first_example_is_read() -> None:
    options = Options(model="anthropic/claude-sonnet-4", tools=("order_status", "refund"), max_cost=0.25)
    assert parse(THE_LINE) == Arguments(("support",), options)


def test_every_option_is_read() -> None:
    line = (
        "bot --model m --tools a --output Invoice --instructions 'Be brief.' --max-cost 1 --max-turns 3 --retries 0 "
        "--temperature 0.5 --max-tokens 200 --memory ram --history window:20 --tag tenant=a --as answer --define "
        "--replay only --no-record --background --models 'x/y, z' --models v -n 3 --approval deny --dry-run"
    ).replace("--model m ", "")
    assert parse(line) == Arguments(
        ("bot",),
        Options(None, ("a",), "Invoice", "Be brief.", 1.0, 3, 0, 0.5, 200, "ram", ("window", 20), (("tenant", "a"),)),
        bind="answer",
        define=True,
        dry_run=True,
        background=True,
        models=("x/y", "z", "v"),
        samples=3,
        approval="deny",
        record=False,
        replay="only",
    )


def test_every_declared_option_has_its_place() -> None:
    places = {field.name for field in fields(Options)} | {"as", "define", "fresh", "replay", "no_record", "background", "models", "samples", "approval", "dry_run"}
    assert {option.attribute for option in OPTIONS} == places


@pytest.mark.parametrize(
    "line", ["-m m -t a,b -o int -i x bot", "bot -m=m -t=a,b -o=int -i=x", "--model=m bot -t a -t b -o int -i x"]
)
def test_short_forms_equals_signs_and_any_order_say_the_same(line: str) -> None:
    assert parse(line) == Arguments(("bot",), Options("m", ("a", "b"), "int", "x"))


@pytest.mark.parametrize(
    "tools", [" a,b,c", " a, b, c", " a ,b ,c", " a , b,c", " 'a, b', c", "=a, b,c", " a,b,c,", " a,a,b,c,b"]
)
def test_lists_may_have_spaces_around_their_commas(tools: str) -> None:
    assert parse(f"bot --tools{tools} --model m") == Arguments(("bot",), Options("m", ("a", "b", "c")))


@pytest.mark.parametrize("names", ["a,,b", ",a", "a,"])
def test_a_name_is_missing_beside_a_comma(names: str) -> None:
    assert mistake(names).startswith("needs names with a comma between each two, such as support,critic; got ")


@pytest.mark.parametrize("names", ["a,b", "a, b", "a ,b", "'a, b'"])
def test_several_agents_are_named_with_commas(names: str) -> None:
    assert parse(f"--max-turns 2 {names} --max-cost 1").names == ("a", "b")


@pytest.mark.parametrize(("line", "said"), [("a,b,a", "names 'a' twice"), ("a --models x,y,x", "--models names 'x' twice")])
def test_the_same_one_twice_is_a_slip(line: str, said: str) -> None:
    assert mistake(line) == f"{said}; to ask it twice: -n 2"


def test_on_one_line_the_names_end_where_the_text_begins() -> None:
    arguments = parse("a,b , so to say", text_follows=True)
    assert (arguments.names, arguments.text) == (("a", "b"), ", so to say")


@pytest.mark.parametrize(("line", "n"), [("a", 1), ("a,b", 2), ("a -n 3", 3), ("a,b --models x,y,z -n 2", 12), ("a --models x", 1)])
def test_runs_are_agents_times_models_times_samples(line: str, n: int) -> None:
    assert parse(line).n_runs == n


def test_one_model_or_several_are_given_and_not_both() -> None:
    assert mistake("a --model x --models y,z") == "--model and --models both say which model answers; leave one of them out"


def test_tags_are_given_one_by_one_and_the_last_of_a_name_counts() -> None:
    line = "bot --tag tenant=a --tag 'topic = two, words' --tag=url=http://x?a=b --tag tenant=b"
    assert dict(parse(line).options.tag or ()) == {"tenant": "b", "topic": "two, words", "url": "http://x?a=b"}


@pytest.mark.parametrize("tag", ["tenant", "=a", "tenant=", "' = '"])
def test_tag_needs_a_name_and_a_value(tag: str) -> None:
    assert "--tag needs NAME=VALUE, such as tenant=a" in mistake(f"bot --tag {tag}")


def test_tags_of_another_name_stay() -> None:
    base = Options(model="m", tag=(("tenant", "a"), ("topic", "x")))
    assert dict(Options(tag=(("tenant", "b"),)).over(base).tag or ()) == {"tenant": "b", "topic": "x"}
    assert Options().over(base) == base


def test_fresh_is_a_way_to_replay() -> None:
    assert parse("bot --fresh").replay == "fresh"
    assert parse("bot").replay is None
    assert mistake("bot --fresh --replay on") == "--fresh and --replay both say how to replay; leave one of them out"


@pytest.mark.parametrize("option", ["--fresh", "--replay fresh"])
def test_what_is_asked_afresh_is_kept(option: str) -> None:
    told = f"{option} keeps the new answer, and --no-record keeps nothing; leave one of them out (--replay off asks, too)"
    assert mistake(f"bot --no-record {option}") == mistake(f"bot {option} --no-record") == told
    assert "did you mean only?" in mistake("bot --replay onyl")


def test_filters_are_read_beside_bare_words() -> None:
    words, filters = parse_filters("20 --since 7d --agent support --tag tenant=a --tag topic")
    assert (words, filters) == (["20"], {"since": "7d", "agent": "support", "tag": ("tenant=a", "topic")})
    with pytest.raises(ErrorConfig, match="unknown option --sinc; did you mean --since"):
        parse_filters("--sinc 7d")


def test_quotes_hold_words_together_and_backslashes_stay() -> None:
    arguments = parse(r"""bot -i "say 'hi'" --memory C:\new\mem.db""")
    assert arguments.options == Options(instructions="say 'hi'", memory=r"C:\new\mem.db")


def test_value_may_hold_an_equals_sign() -> None:
    assert parse("bot --model=https://host/v1/m?a=b").options.model == "https://host/v1/m?a=b"


def test_empty_line_has_no_name() -> None:
    assert parse("  ") == Arguments()


@pytest.mark.parametrize("name", ["support", "support-2", "süd_west", "v1.2"])
def test_names_of_agents(name: str) -> None:
    assert parse(name).name == name


@pytest.mark.parametrize("name", ["2fast", "a/b", "{x}", "'two words'", "''", "a,2b", "🙂"])
def test_other_words_are_no_names(name: str) -> None:
    assert "cannot be the name of an agent; a name is made of letters, digits" in mistake(name)


@pytest.mark.parametrize("name", ["list", "show", "help", "budget", "runs", "cost"])
def test_words_of_the_magic_are_no_names(name: str) -> None:
    assert mistake(name) == f"{name} is a word of %agent, so no agent can be called {name}; choose another name"


@pytest.mark.parametrize(
    ("line", "hint"),
    [
        ("bot --modle x", "unknown option --modle; did you mean --model?"),
        ("bot --max_cost 1", "unknown option --max_cost; did you mean --max-cost?"),
        ("bot --maxcost=1", "unknown option --maxcost; did you mean --max-cost?"),
        ("bot --tool a", "unknown option --tool; did you mean --tools?"),
        ("bot -x", "unknown option -x"),
        ("bot --history windw:20", "got 'windw:20'; did you mean window?"),
    ],
)
def test_unknown_words_are_answered_with_the_nearest(line: str, hint: str) -> None:
    assert hint in mistake(line)


@pytest.mark.parametrize("value", ["-1", "nan", "inf", "-inf", "1e999", "free", "$1", "''", "0,25"])
@pytest.mark.parametrize("flag", ["--max-cost", "--temperature"])
def test_amounts_are_finite_and_not_negative(flag: str, value: str) -> None:
    assert mistake(f"bot {flag} {value}").startswith(f"{flag} needs a ")
    assert mistake(f"bot {flag}={value}").startswith(f"{flag} needs a ")


@pytest.mark.parametrize("value", ["-1", "0", "1.5", "1e3", "ten", "nan", "9" * 5000])
@pytest.mark.parametrize("flag", ["--max-turns", "--max-tokens"])
def test_counts_are_whole_and_at_least_one(flag: str, value: str) -> None:
    assert mistake(f"bot {flag} {value}").startswith(f"{flag} needs a whole number from 1")


def test_no_retries_is_a_count_too() -> None:
    assert parse("bot --retries 0").options.retries == 0
    assert "whole number from 0" in mistake("bot --retries -1")


@pytest.mark.parametrize("value", ["window", "window:", "window:0", "window:-3", "window:many", "20", "summarize:3", ":5"])
def test_history_is_a_policy_and_a_size(value: str) -> None:
    assert mistake(f"bot --history {value}").startswith("--history needs window:N")


def test_history_may_be_a_variable() -> None:
    assert parse("bot --history policy").options.history == "policy"


def test_truncating_history_is_read() -> None:
    assert parse("bot --history truncate:8000").options.history == ("truncate", 8000)


@pytest.mark.parametrize("value", ["class", "None", "2x", "a.b", "a-b"])
def test_result_is_bound_to_a_plain_variable_only(value: str) -> None:
    assert mistake(f"bot --as {value}").startswith("--as needs the name of a variable")


@pytest.mark.parametrize("value", ["a.b", "a b", "a;b", "f()", "lambda", ","])
def test_tools_are_plain_names(value: str) -> None:
    assert mistake(f"bot --tools '{value}'").startswith("--tools needs names from the notebook")


@pytest.mark.parametrize("line", ["bot --model", "bot --model --tools a", "bot --model=", "bot -i ''", "bot --tools --define"])
def test_missing_values_are_named(line: str) -> None:
    assert "needs a value: --" in mistake(line)


def test_other_mistakes() -> None:
    assert mistake("bot --define=yes") == "--define takes no value; got 'yes'"
    assert mistake("bot --model a --model b") == "--model is given twice"
    assert mistake("bot -i 'open") == 'a quote is not closed in "\'open"'
    assert mistake("bot Where is it?") == "unexpected 'Where is it?' after the name bot; the prompt goes below this line"


def test_text_after_the_name_is_taken_as_it_stands() -> None:
    arguments = parse("""-m m bot --max-cost 1 What's "up", -- {a}  {{b}} -t?""", text_follows=True)
    assert arguments == Arguments(("bot",), Options("m", max_cost=1.0), text="""What's "up", -- {a}  {{b}} -t?""")


def test_option_after_the_text_is_refused_unless_marked() -> None:
    assert mistake("bot Where is it? --max-cost 1", True).startswith("--max-cost comes after the prompt; put options before it")
    assert parse("bot -- what does --max-cost=1 do", text_follows=True).text == "what does --max-cost=1 do"
    assert parse("bot what does --help do", text_follows=True).text == "what does --help do"


def test_values_and_names_can_be_filled_but_only_once() -> None:
    arguments = parse("{a} --model {a} -t={a} -i '{b}'", fill={"{a}": "x", "{b}": "{a} --define"}.__getitem__)
    assert arguments == Arguments(("x",), Options("x", ("x",), instructions="{a} --define"))


def outcome(line: str, text_follows: bool = False) -> Arguments | str:
    try:
        return parse(line, text_follows=text_follows)
    except ErrorConfig as error:
        return str(error)


WORDS = ["bot", "--model", "m", "--tools", "a,", ",", "b", "--max-cost", "-1", "'", "--define", "--as", "=", "-t=a", "--", "?"]


@given(st.one_of(st.text(), st.lists(st.sampled_from(WORDS)).map(" ".join)), st.booleans())
def test_any_line_is_read_or_refused_in_few_lines(line: str, text_follows: bool) -> None:
    said = outcome(line, text_follows)
    assert isinstance(said, Arguments) or (1 <= len(said.splitlines()) <= 3 and len(said) < 400)


def test_help_has_a_line_for_each_option() -> None:
    lines = option_lines().splitlines()
    assert len(lines) == len(OPTIONS)
    assert lines[0].split()[:3] == ["-m,", "--model", "MODEL"]


def test_options_of_one_run_lie_over_those_of_the_definition() -> None:
    assert Options(max_cost=0.0, tools=("b",)).over(Options("m", ("a",), max_cost=1.0)) == Options("m", ("b",), max_cost=0.0)
