/* SPDX-License-Identifier: Apache-2.0 */
#include "common/process/process.h"

#include "common/base/log.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>
#include <uv.h>

enum { SECRET_BYTES_MIN = 16, SECRET_BYTES_MAX = 4096, LARGE_BLOCK_BYTES = 1 << 20 };

static sigset_t handled_signals(void)
{
	sigset_t set;
	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	return set;
}

enum cad_status cad_process_init(struct cad_error *error)
{
	sigset_t set = handled_signals();
	int failed = pthread_sigmask(SIG_BLOCK, &set, NULL);
	if (failed || signal(SIGPIPE, SIG_IGN) == SIG_ERR)
		return cad_error_set(
			error, CAD_ERR_INTERNAL, "cannot set up signals: %s", strerror(failed ? failed : errno));
	/* In a container other processes may be left to it when their parents end. The kernel
	 * buries them. */
	if (getpid() == 1)
		(void)signal(SIGCHLD, SIG_IGN);
	/* glibc raises this with each block above it that is freed, up to 32 MiB: what
	 * many requests took for a while (a ring of 4 MiB for each that wants its
	 * routing) would never go back. */
	mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK_BYTES);

	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0 && files.rlim_cur < files.rlim_max) {
		files.rlim_cur = files.rlim_max;
		if (setrlimit(RLIMIT_NOFILE, &files) != 0)
			cad_log_warn(
				"process", "cannot raise the limit of open files", CAD_S("reason", strerror(errno)));
	}

	return CAD_OK;
}

struct cad_signals {
	uv_poll_t poll;
	int fd;
	cad_signal_fn *fn;
	void *context;
};

static void on_readable(uv_poll_t *poll, int status, int events)
{
	struct cad_signals *signals = poll->data;
	struct signalfd_siginfo info;
	(void)status;
	(void)events;
	/* fn may close: nothing of `signals` is used after it */
	if (read(signals->fd, &info, sizeof info) == sizeof info)
		signals->fn(signals->context, (int)info.ssi_signo);
}

enum cad_status cad_signals_create(
	struct uv_loop_s *loop, cad_signal_fn *fn, void *context, struct cad_signals **signals, struct cad_error *error)
{
	struct cad_signals *made = calloc(1, sizeof *made);
	if (!made)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the signal watch");

	sigset_t set = handled_signals();
	made->fn = fn;
	made->context = context;
	made->fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
	if (made->fd < 0) {
		cad_error_set(error, CAD_ERR_INTERNAL, "signalfd: %s", strerror(errno));
		goto free_made;
	}

	int failed = uv_poll_init(loop, &made->poll, made->fd);
	if (failed) {
		cad_error_set(error, CAD_ERR_INTERNAL, "cannot watch for signals: %s", uv_strerror(failed));
		goto close_fd;
	}

	made->poll.data = made;
	CAD_ASSERT(uv_poll_start(&made->poll, UV_READABLE, on_readable) == 0);
	*signals = made;
	return CAD_OK;

close_fd:
	close(made->fd);
free_made:
	free(made);

	return CAD_ERR_INTERNAL;
}

static void on_closed(uv_handle_t *handle)
{
	struct cad_signals *signals = handle->data;
	close(signals->fd);
	free(signals);
}

void cad_signals_close(struct cad_signals *signals)
{
	if (signals)
		uv_close((uv_handle_t *)&signals->poll, on_closed);
}

bool cad_signals_pending(void)
{
	sigset_t pending;
	return sigpending(&pending) == 0 && (sigismember(&pending, SIGINT) == 1 || sigismember(&pending, SIGTERM) == 1);
}

enum cad_status cad_private_file_read(
	const char *path, const char *what, size_t bytes_max, char **text, size_t *size, struct cad_error *error)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);

	if (fd < 0)
		return cad_error_set(error, CAD_ERR_IO, "cannot open the %s '%s': %s", what, path, strerror(errno));

	struct stat about;
	if (fstat(fd, &about) == 0 && S_ISDIR(about.st_mode)) {
		close(fd);
		return cad_error_set(error, CAD_ERR_IO, "the %s '%s' is a directory, but must be a file", what, path);
	}

	if (fstat(fd, &about) == 0 && (about.st_mode & S_IROTH))
		cad_log_warn("process", "everyone on this machine can read it", CAD_S("what", what),
			CAD_S("file", path), CAD_S("change", "chmod o-r"));

	char *bytes = malloc(bytes_max + 1);
	size_t length = 0;
	ssize_t got = 0;
	while (bytes && length <= bytes_max && (got = read(fd, bytes + length, bytes_max + 1 - length)) > 0)
		length += (size_t)got;
	int why = errno;
	close(fd);
	if (!bytes)
		return cad_error_set(error, CAD_ERR_MEMORY, "no memory for the %s", what);
	if (got >= 0 && length <= bytes_max) {
		*text = bytes;
		*size = length;
		return CAD_OK;
	}

	explicit_bzero(bytes, length);
	free(bytes);
	if (got < 0)
		return cad_error_set(error, CAD_ERR_IO, "cannot read the %s '%s': %s", what, path, strerror(why));
	return cad_error_set(error, CAD_ERR_INVALID, "the %s '%s' is longer than %zu bytes", what, path, bytes_max);
}

enum cad_status cad_secret_read(const char *path, const char *what, char **secret, struct cad_error *error)
{
	char *text;
	size_t size;
	enum cad_status status = cad_private_file_read(path, what, SECRET_BYTES_MAX, &text, &size, error);
	if (status != CAD_OK)
		return status;

	size_t length = size;
	while (length > 0 && isspace((unsigned char)text[length - 1]))
		length--;
	if (length < SECRET_BYTES_MIN || memchr(text, 0, length)) {
		status = cad_error_set(error, CAD_ERR_INVALID,
			"the %s '%s' must have at least %d bytes of text: write one with 'openssl rand -hex 32'", what,
			path, SECRET_BYTES_MIN);
		goto clear;
	}

	char *copy = strndup(text, length);
	status = copy ? CAD_OK : cad_error_set(error, CAD_ERR_MEMORY, "no memory for the %s", what);
	if (copy)
		*secret = copy;

clear:
	explicit_bzero(text, size);
	free(text);
	return status;
}

void cad_secret_free(char *secret)
{
	if (secret)
		explicit_bzero(secret, strlen(secret));
	free(secret);
}

bool cad_process_name_is_legal(const char *name)
{
	size_t length = strlen(name);
	return length > 0 && length < CAD_PROCESS_NAME_BYTES &&
		strspn(name, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:-") == length;
}

void cad_process_name(char *text, size_t bytes)
{
	char host[65] = "";
	if (gethostname(host, sizeof host - 1) != 0 || !host[0])
		snprintf(host, sizeof host, "node");
	host[40] = 0; /* a node id has 63 bytes on the wire */
	for (char *c = host; *c; c++)
		if (!isalnum((unsigned char)*c) && *c != '.' && *c != '-')
			*c = '-'; /* what a node id may not hold */
	snprintf(text, bytes, "%s-%x", host, (unsigned)getpid());
}
