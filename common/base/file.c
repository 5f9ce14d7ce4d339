/* SPDX-License-Identifier: Apache-2.0 */
#include "common/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

bool cad_file_exists(const char *path)
{
	struct stat status;
	return stat(path, &status) == 0;
}

enum cad_status cad_file_check_regular(const char *path, struct cad_error *error)
{
	struct stat status;
	if (stat(path, &status) != 0 || S_ISREG(status.st_mode) || S_ISDIR(status.st_mode))
		return CAD_OK;
	return cad_error_set(error, CAD_ERR_IO, "'%s' is not a regular file, and so is only read at the start", path);
}

/* Opens a regular file. O_NONBLOCK, so that a pipe without a writer is refused below instead of
 * waited for. */
static enum cad_status file_open(const char *path, int *fd, size_t *size, struct cad_error *error)
{
	int opened = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (opened < 0)
		return errno == ENOENT || errno == ENOTDIR
			? cad_error_set(error, CAD_ERR_NOT_FOUND, "%s does not exist", path)
			: cad_error_set(error, CAD_ERR_IO, "%s cannot be opened: %s", path, strerror(errno));
	struct stat status;
	enum cad_status result;
	if (fstat(opened, &status) != 0)
		result = cad_error_set(error, CAD_ERR_IO, "%s cannot be examined: %s", path, strerror(errno));
	else if (S_ISDIR(status.st_mode))
		result = cad_error_set(error, CAD_ERR_IO, "%s is a directory, but must be a file", path);
	else if (!S_ISREG(status.st_mode))
		result = cad_error_set(error, CAD_ERR_IO, "%s is not a regular file", path);
	else {
		*fd = opened;
		*size = (size_t)status.st_size;
		return CAD_OK;
	}

	close(opened);
	return result;
}

enum cad_status cad_file_read(const char *path, size_t size_max, char **bytes, size_t *size, struct cad_error *error)
{
	int fd;
	size_t wanted;
	enum cad_status status = file_open(path, &fd, &wanted, error);

	if (status != CAD_OK)
		return status;

	char *buffer = NULL;
	if (wanted > size_max) {
		status = cad_error_set(
			error, CAD_ERR_EXHAUSTED, "%s has %zu bytes; at most %zu are read", path, wanted, size_max);
		goto close_file;
	}

	buffer = malloc(wanted + 1);
	if (!buffer) {
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory for the %zu bytes of %s", wanted, path);
		goto close_file;
	}

	size_t got = 0;
	while (got < wanted) {
		ssize_t n = read(fd, buffer + got, wanted - got);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0) {
			status = cad_error_set(error, CAD_ERR_IO, "%s cannot be read: %s", path,
				n < 0 ? strerror(errno) : "it shrank while it was read");
			goto free_buffer;
		}
		got += (size_t)n;
	}

	buffer[wanted] = 0;
	*bytes = buffer;
	*size = wanted;
	close(fd);
	return CAD_OK;

free_buffer:
	free(buffer);
close_file:
	close(fd);

	return status;
}

static uint64_t time_ns(struct timespec time) { return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec; }

static bool identify(int fd, struct cad_file_identity *identity)
{
	struct stat file;
	if (fstat(fd, &file) != 0)
		return false;
	*identity = (struct cad_file_identity){
		.device = file.st_dev,
		.inode = file.st_ino,
		.bytes = (uint64_t)file.st_size,
		.modified_ns = time_ns(file.st_mtim),
		.changed_ns = time_ns(file.st_ctim),
	};
	return true;
}

enum cad_status cad_file_map(
	const char *path, const void **bytes, size_t *size, struct cad_file_identity *identity, struct cad_error *error)
{
	int fd;
	size_t wanted;
	enum cad_status status = file_open(path, &fd, &wanted, error);

	if (status != CAD_OK)
		return status;

	void *mapping = wanted ? mmap(NULL, wanted, PROT_READ, MAP_SHARED, fd, 0) : NULL;
	if (mapping != MAP_FAILED && identity && !identify(fd, identity)) {
		int reason = errno;
		close(fd);
		cad_file_unmap(mapping, wanted);
		return cad_error_set(error, CAD_ERR_IO, "%s cannot be read: %s", path, strerror(reason));
	}
	int failure = errno;
	close(fd);
	if (mapping == MAP_FAILED)
		return cad_error_set(error, CAD_ERR_IO, "%s cannot be mapped: %s", path, strerror(failure));
	*bytes = mapping;
	*size = wanted;

	return CAD_OK;
}

void cad_file_unmap(const void *bytes, size_t size)
{
	if (bytes)
		munmap((void *)(uintptr_t)bytes, size);
}

void cad_file_forget(const void *bytes, size_t size)
{
	uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), begin = (uintptr_t)bytes & ~(page - 1);
	if (size > 0)
		madvise((void *)begin, (uintptr_t)bytes + size - begin, MADV_DONTNEED);
}

static enum cad_status writer_open(
	struct cad_file_writer *writer, const char *path, mode_t mode, struct cad_error *error)
{
	/* two writers of one file, in one process or in two, have two temporary files */
	static _Atomic unsigned counter;
	struct cad_file_writer opened = { .path = strdup(path) };
	struct stat there;
	enum cad_status status;

	/* the rename would replace it, whatever it is: /dev/null too */
	if (stat(path, &there) == 0 && !S_ISREG(there.st_mode)) {
		status = cad_error_set(error, CAD_ERR_IO, "%s cannot be written: it is %s, not a file", path,
			S_ISDIR(there.st_mode) ? "a directory" : "a device or the like");
		goto free_names;
	}
	if (!opened.path || asprintf(&opened.temporary, "%s.%ld-%u.tmp", path, (long)getpid(), counter++) < 0) {
		opened.temporary = NULL;
		status = cad_error_set(error, CAD_ERR_MEMORY, "no memory to write %s", path);
		goto free_names;
	}

	int fd = open(opened.temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
	if (fd < 0) {
		status = cad_error_set(error, CAD_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
		goto free_names;
	}

	opened.stream = fdopen(fd, "wb");

	if (!opened.stream) {
		status = cad_error_set(error, CAD_ERR_IO, "%s cannot be written: %s", path, strerror(errno));
		close(fd);
		unlink(opened.temporary);
		goto free_names;
	}

	*writer = opened;
	return CAD_OK;

free_names:
	free(opened.temporary);
	free(opened.path);

	return status;
}

enum cad_status cad_file_writer_open(struct cad_file_writer *writer, const char *path, struct cad_error *error)
{
	return writer_open(writer, path, 0666, error);
}

enum cad_status cad_file_writer_open_private(struct cad_file_writer *writer, const char *path, struct cad_error *error)
{
	return writer_open(writer, path, 0600, error);
}

static void writer_fini(struct cad_file_writer *writer)
{
	free(writer->temporary);
	free(writer->path);
	*writer = (struct cad_file_writer){ 0 };
}

enum cad_status cad_file_writer_commit(struct cad_file_writer *writer, struct cad_error *error)
{
	bool written = !ferror(writer->stream) && fflush(writer->stream) == 0 && fsync(fileno(writer->stream)) == 0;
	int failure = errno;
	bool closed = fclose(writer->stream) == 0;

	if (written && !closed)
		failure = errno;
	bool renamed = written && closed && rename(writer->temporary, writer->path) == 0;
	if (written && closed && !renamed)
		failure = errno;
	enum cad_status status = CAD_OK;
	if (!renamed) {
		status = cad_error_set(error, CAD_ERR_IO, "%s cannot be written: %s", writer->path, strerror(failure));
		unlink(writer->temporary);
	}

	writer_fini(writer);
	return status;
}

void cad_file_writer_abandon(struct cad_file_writer *writer)
{
	(void)fclose(writer->stream);
	unlink(writer->temporary);
	writer_fini(writer);
}
