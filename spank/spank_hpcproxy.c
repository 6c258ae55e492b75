/*
 * A SPANK plugin that runs the scripts of a roll-out where Slurm's Prolog, Epilog and TaskProlog would, without a line
 * in slurm.conf: slurm_spank_job_prolog runs `prolog`, slurm_spank_job_epilog `epilog`, and slurm_spank_task_init `taskprolog`,
 * whose stdout means what a TaskProlog's does (sbatch(1), "export NAME=value" and "unset NAME"). See spank(7).
 *
 * plugstack.conf:  optional /usr/libexec/hpcproxy/spank_hpcproxy.so [home=DIRECTORY] [option]
 *
 * With `option` jobs may say `#SBATCH --hpcproxy`, and the Prolog is told so by HPCPROXY_ASKED=1.
 *
 * `optional` and not `required`: a node without this file then drains nothing and fails no job. Whatever goes wrong here is
 * kept here, for the same reason: every function returns 0.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <slurm/spank.h>

#ifndef PROGRAMS
#define PROGRAMS "/usr/libexec/hpcproxy"
#endif

SPANK_PLUGIN(hpcproxy, 1)

#define TEXT_OF(number) #number
#define TEXT(number) TEXT_OF(number)
/* For `deploy`, which looks for which Slurm this was built before it puts it anywhere: SLURM_VERSION_NUMBER in hex. */
const char spank_hpcproxy_built_for[] = "hpcproxy-spank-built-for:" TEXT(SLURM_VERSION_NUMBER) ";";

/* The scripts bound themselves (half a second; task_wait_s and two minutes). These are for a script that hangs. */
enum { HOOK_S = 30, TASK_S = 300, LINES_BYTES = 65536, PATH_BYTES = 512 };

static int asked_for(int value, const char *argument, int remote)
{
	(void) value;
	(void) argument;
	(void) remote;
	return 0;
}

static struct spank_option option = {
	"hpcproxy", NULL, "Give this job a way to the internet on each of its nodes.", 0, 0, asked_for,
};

static int has_argument(int count, char *arguments[], const char *word)
{
	for (int i = 0; i < count; i++)
		if (strcmp(arguments[i], word) == 0)
			return 1;
	return 0;
}

/* The path of a script of ours; 0 if it would be too long. */
static int script_path(char path[PATH_BYTES], const char *name, int count, char *arguments[])
{
	const char *home = PROGRAMS;

	for (int i = 0; i < count; i++)
		if (strncmp(arguments[i], "home=/", strlen("home=/")) == 0)
			home = arguments[i] + strlen("home=");
	return snprintf(path, PATH_BYTES, "%s/%s", home, name) < PATH_BYTES;
}

static long long now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/*
 * Start `path` in a process group of its own with stdout `output`, or nowhere if that is -1. A signal that slurmstepd
 * ignores or blocks would be so in all that the script starts. Returns its pid, or -1.
 */
static pid_t start(const char *path, char *const environment[], int output)
{
	char *const words[] = { (char *) path, NULL };
	sigset_t none;
	pid_t pid = fork();

	if (pid != 0)
		return pid;
	setpgid(0, 0);
	for (int number = 1; number < NSIG; number++)
		signal(number, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
	int nowhere = open("/dev/null", O_RDWR);
	if (nowhere < 0)
		_exit(126);
	dup2(nowhere, 0);
	dup2(output < 0 ? nowhere : output, 1);
	dup2(nowhere, 2);
	/* slurmstepd reads its pipes until the last copy of each is closed. */
	for (int descriptor = 3; descriptor < 1024; descriptor++)
		close(descriptor);
	execve(path, words, environment);
	_exit(127);
}

/* Wait for the end of `pid` until `deadline_ms`; what is there after that is killed with its group. */
static void await_end(pid_t pid, long long deadline_ms)
{
	const struct timespec pause = { 0, 5000000 };

	for (;;) {
		pid_t ended = waitpid(pid, NULL, WNOHANG);
		if (ended == pid || (ended < 0 && errno != EINTR))
			return;
		if (now_ms() > deadline_ms) {
			kill(-pid, SIGKILL);
			waitpid(pid, NULL, 0);
			return;
		}
		nanosleep(&pause, NULL);
	}
}

static void run_hook(const char *name, int count, char *arguments[])
{
	char path[PATH_BYTES];
	pid_t pid;

	if (!script_path(path, name, count, arguments))
		return;
	pid = start(path, environ, -1);
	if (pid > 0)
		await_end(pid, now_ms() + HOOK_S * 1000LL);
}

/* Do what one line of the TaskProlog's says. */
static void take_line(spank_t spank, char *line)
{
	char *equals = strchr(line, '=');

	if (strncmp(line, "export ", 7) == 0 && equals != NULL) {
		*equals = '\0';
		spank_setenv(spank, line + 7, equals + 1, 1);
	} else if (strncmp(line, "unset ", 6) == 0) {
		spank_unsetenv(spank, line + 6);
	} else if (strncmp(line, "print ", 6) == 0) {
		/* The task's own stdout by now, as for a TaskProlog. */
		dprintf(1, "%s\n", line + 6);
	}
}

/* Read all of `input` until `deadline_ms` into `text`, at most LINES_BYTES; what is longer is not ours. Its length. */
static size_t read_lines(int input, char text[LINES_BYTES + 1], long long deadline_ms)
{
	struct pollfd watched = { input, POLLIN, 0 };
	size_t length = 0;

	while (length < LINES_BYTES) {
		long long left_ms = deadline_ms - now_ms();
		if (left_ms <= 0 || (poll(&watched, 1, (int) left_ms) < 0 && errno != EINTR))
			break;
		ssize_t got = watched.revents ? read(input, text + length, LINES_BYTES - length) : 0;
		if (got < 0 && errno == EINTR)
			continue;
		if (got <= 0)
			break;
		length += (size_t) got;
	}
	return length;
}

int slurm_spank_init(spank_t spank, int count, char *arguments[])
{
	/* In slurmd itself there are no options to register: 22.05's ends by a segmentation fault. */
	if (spank_context() != S_CTX_SLURMD && has_argument(count, arguments, "option"))
		spank_option_register(spank, &option);
	return 0;
}

int slurm_spank_job_prolog(spank_t spank, int count, char *arguments[])
{
	char slurmd[16];

	/* Nothing of this name may come from anywhere else. */
	unsetenv("HPCPROXY_ASKED");
	/* This process, a slurmstepd, ends at once; the supervisor finds Slurm's programs beside its parent. */
	snprintf(slurmd, sizeof slurmd, "%d", (int) getppid());
	setenv("HPCPROXY_SLURMD", slurmd, 1);
	if (has_argument(count, arguments, "option") && spank_option_getopt(spank, &option, NULL) == ESPANK_SUCCESS)
		setenv("HPCPROXY_ASKED", "1", 1);
	run_hook("prolog", count, arguments);
	return 0;
}

int slurm_spank_job_epilog(spank_t spank, int count, char *arguments[])
{
	(void) spank;
	run_hook("epilog", count, arguments);
	return 0;
}

/* In the task's process, as the job's user, before the site's own TaskProlog. */
int slurm_spank_task_init(spank_t spank, int count, char *arguments[])
{
	char path[PATH_BYTES], **environment, *text, *rest;
	long long deadline_ms = now_ms() + TASK_S * 1000LL;
	int ends[2];
	pid_t pid;

	if (!script_path(path, "taskprolog", count, arguments) || access(path, X_OK) != 0)
		return 0;
	if (spank_get_item(spank, S_JOB_ENV, &environment) != ESPANK_SUCCESS || pipe2(ends, O_CLOEXEC) != 0)
		return 0;
	pid = start(path, environment, ends[1]);
	close(ends[1]);
	text = calloc(LINES_BYTES + 1, 1);
	if (pid > 0 && text != NULL) {
		size_t length = read_lines(ends[0], text, deadline_ms);
		close(ends[0]);
		ends[0] = -1;
		await_end(pid, deadline_ms);
		/* A last line without its end may be cut off. */
		while (length > 0 && text[length - 1] != '\n')
			text[--length] = '\0';
		rest = text;
		for (char *line; (line = strsep(&rest, "\n")) != NULL;)
			take_line(spank, line);
	}
	free(text);
	if (ends[0] >= 0)
		close(ends[0]);
	return 0;
}
