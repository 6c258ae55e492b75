import pytest

from tests.sshd import prepare

from .harness import Agent, FarEnd, jump_of


@pytest.fixture(scope="session")
def jump_host(tmp_path_factory):
    """One sshd that no test harms."""
    sshd = prepare(tmp_path_factory.mktemp("jump")).start()
    yield sshd
    sshd.stop()


@pytest.fixture
def start_agent(tmp_path, jump_host):
    """start_agent(**settings) gives an agent that has been started, and is ended after the test."""
    agents = []

    def start(jumps=None, wait=True, **settings):
        name = "a{}".format(len(agents))
        agent = Agent(tmp_path / name, jumps or [jump_of(jump_host)], **settings)
        agents.append(agent)
        agent.start()
        return agent.ready() if wait else agent

    yield start
    for agent in agents:
        agent.stop()
        assert "Traceback" not in agent.err.read_text()
        assert "Warning" not in agent.err.read_text()


@pytest.fixture(scope="session")
def agent(tmp_path_factory, jump_host):
    """One agent for all tests that do not change its tunnel."""
    agent = Agent(
        tmp_path_factory.mktemp("agent"),
        [jump_of(jump_host)],
        flags=("-I", "-X", "dev", "-W", "error"),
        deny=["denied.example", "10.0.0.0/8"],
        access_log=True,
        connect_timeout_s=2,
    ).start()
    agent.ready()
    yield agent
    log = agent.log()
    assert agent.stop() == 0
    assert agent.err.read_text() == ""
    assert " error " not in log


@pytest.fixture
def far_end():
    """far_end(serve, port) gives a server that is closed after the test."""
    servers = []

    def start(serve, port=0, host=None):
        servers.append(FarEnd(serve, port, host))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
