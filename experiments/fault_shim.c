/* Counts the file operations of a process below a folder and spoils some.

   Preloaded by faults.py (LD_PRELOAD); reads its orders from the environment
   at the start and at fault_reset():

   FAULT_UNDER    the folder, an absolute path; nothing is counted without it
   FAULT_KIND     "write" (default): what changes files; "read": what reads
   FAULT_SINCE    count from the first operation of this name on ("mkdir")
   FAULT_AT       the first operation to spoil, from 1; 0 spoils none
   FAULT_COUNT    how many from there on; 0 for all
   FAULT_DO       kill: SIGKILL before the operation; torn: the same, after
                  half of a write; EIO, ENOSPC: it fails; sleep: it is late
   FAULT_SECONDS  of the sleep
   FAULT_LOG      a file that gets a line for each operation counted

   The operations are done by system calls of its own, so that no library's
   calls are missed or counted twice. */

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { TORN = -1 };
static char under[4096], since[16], action[16];
static long first, count, done;
static double seconds;
static int reads, counting, log_fd = -1;

static const char *order(const char *name, const char *otherwise) {
  const char *value = getenv(name);
  return value ? value : otherwise;
}

__attribute__((constructor)) void fault_reset(void) {
  snprintf(under, sizeof under, "%s", order("FAULT_UNDER", ""));
  snprintf(since, sizeof since, "%s", order("FAULT_SINCE", ""));
  snprintf(action, sizeof action, "%s", order("FAULT_DO", ""));
  first = atol(order("FAULT_AT", "0"));
  count = atol(order("FAULT_COUNT", "0"));
  seconds = atof(order("FAULT_SECONDS", "0"));
  reads = !strcmp(order("FAULT_KIND", "write"), "read");
  counting = !*since;
  done = 0;
  if (log_fd >= 0) syscall(SYS_close, log_fd);
  const char *log = order("FAULT_LOG", "");
  int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
  log_fd = *log ? syscall(SYS_openat, AT_FDCWD, log, flags, 0600) : -1;
}

static void die(void) {
  syscall(SYS_kill, getpid(), SIGKILL);
  for (;;) pause();
}

/* The path of an open file, or of a name in an open folder. */
static void resolve(int fd, const char *name, char *path, size_t size) {
  size_t length = 0;
  if (!name || (*name != '/' && fd != AT_FDCWD)) {
    char link[32];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    long n = syscall(SYS_readlinkat, AT_FDCWD, link, path, size - 1);
    length = n > 0 ? n : 0;
  }
  path[length] = 0;
  if (name) snprintf(path + length, size - length, "%s%s", length ? "/" : "",
                     name);
}

/* 0: go on. TORN: half of it, then die. Else the errno to fail with. */
static int fault(const char *name, int kind, int fd, const char *file) {
  if (!*under || kind != reads) return 0;
  char path[4096 + 512];
  int saved = errno;
  resolve(fd, file, path, sizeof path);
  errno = saved;
  size_t length = strlen(under);
  if (strncmp(path, under, length) || (path[length] && path[length] != '/'))
    return 0;
  if (!counting && strcmp(name, since)) return 0;
  counting = 1;
  long number = __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
  if (log_fd >= 0) {
    char line[sizeof path + 64];
    int n = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path);
    syscall(SYS_write, log_fd, line, n);
  }
  if (!first || number < first || (count && number >= first + count)) return 0;
  if (!strcmp(action, "kill")) die();
  if (!strcmp(action, "torn")) {
    if (!strcmp(name, "write")) return TORN;
    die();
  }
  if (!strcmp(action, "EIO")) return EIO;
  /* A full disk still lets go of what it has. */
  if (!strcmp(action, "ENOSPC"))
    return strcmp(name, "unlink") && strcmp(name, "rmdir") ? ENOSPC : 0;
  if (!strcmp(action, "sleep")) {
    struct timespec left = {seconds, (seconds - (long)seconds) * 1e9};
    while (nanosleep(&left, &left) && errno == EINTR) continue;
    errno = saved;
  }
  return 0;
}

#define MAY_FAIL(name, kind, fd, file)               \
  do {                                               \
    int error = fault(name, kind, fd, file);         \
    if (error) return errno = error, -1;             \
  } while (0)

#define MAY_TEAR(fd, half)                           \
  do {                                               \
    int error = fault("write", 0, fd, NULL);         \
    if (error == TORN) {                             \
      half;                                          \
      die();                                         \
    }                                                \
    if (error) return errno = error, -1;             \
  } while (0)

int openat(int dir, const char *file, int flags, ...) {
  va_list args;
  va_start(args, flags);
  mode_t mode = va_arg(args, mode_t);
  va_end(args);
  int is_read = (flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT);
  if (!(flags & O_DIRECTORY)) MAY_FAIL("open", is_read, dir, file);
  return syscall(SYS_openat, dir, file, flags, mode);
}

int open(const char *file, int flags, ...) {
  va_list args;
  va_start(args, flags);
  mode_t mode = va_arg(args, mode_t);
  va_end(args);
  return openat(AT_FDCWD, file, flags, mode);
}

int open64(const char *file, int flags, ...) __attribute__((alias("open")));
int openat64(int dir, const char *file, int flags, ...)
    __attribute__((alias("openat")));

int creat(const char *file, mode_t mode) {
  return openat(AT_FDCWD, file, O_CREAT | O_WRONLY | O_TRUNC, mode);
}

ssize_t read(int fd, void *to, size_t size) {
  MAY_FAIL("read", 1, fd, NULL);
  return syscall(SYS_read, fd, to, size);
}

ssize_t pread(int fd, void *to, size_t size, off_t at) {
  MAY_FAIL("read", 1, fd, NULL);
  return syscall(SYS_pread64, fd, to, size, at);
}

ssize_t pread64(int fd, void *to, size_t size, off_t at)
    __attribute__((alias("pread")));

ssize_t write(int fd, const void *data, size_t size) {
  MAY_TEAR(fd, syscall(SYS_write, fd, data, size / 2));
  return syscall(SYS_write, fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  MAY_TEAR(fd, syscall(SYS_pwrite64, fd, data, size / 2, at));
  return syscall(SYS_pwrite64, fd, data, size, at);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off_t at)
    __attribute__((alias("pwrite")));

ssize_t writev(int fd, const struct iovec *parts, int num) {
  MAY_TEAR(fd, if (num) syscall(SYS_write, fd, parts->iov_base,
                                parts->iov_len / 2));
  return syscall(SYS_writev, fd, parts, num);
}

int ftruncate(int fd, off_t size) {
  MAY_FAIL("truncate", 0, fd, NULL);
  return syscall(SYS_ftruncate, fd, size);
}

int ftruncate64(int fd, off_t size) __attribute__((alias("ftruncate")));

int truncate(const char *file, off_t size) {
  MAY_FAIL("truncate", 0, AT_FDCWD, file);
  return syscall(SYS_truncate, file, size);
}

int truncate64(const char *file, off_t size)
    __attribute__((alias("truncate")));

int fsync(int fd) {
  MAY_FAIL("fsync", 0, fd, NULL);
  return syscall(SYS_fsync, fd);
}

int fdatasync(int fd) {
  MAY_FAIL("fsync", 0, fd, NULL);
  return syscall(SYS_fdatasync, fd);
}

int mkdirat(int dir, const char *file, mode_t mode) {
  MAY_FAIL("mkdir", 0, dir, file);
  return syscall(SYS_mkdirat, dir, file, mode);
}

int mkdir(const char *file, mode_t mode) {
  return mkdirat(AT_FDCWD, file, mode);
}

int renameat2(int old_dir, const char *old, int dir, const char *file,
              unsigned flags) {
  MAY_FAIL("rename", 0, dir, file);
  return syscall(SYS_renameat2, old_dir, old, dir, file, flags);
}

int renameat(int old_dir, const char *old, int dir, const char *file) {
  return renameat2(old_dir, old, dir, file, 0);
}

int rename(const char *old, const char *file) {
  return renameat2(AT_FDCWD, old, AT_FDCWD, file, 0);
}

int linkat(int old_dir, const char *old, int dir, const char *file,
           int flags) {
  MAY_FAIL("link", 0, dir, file);
  return syscall(SYS_linkat, old_dir, old, dir, file, flags);
}

int link(const char *old, const char *file) {
  return linkat(AT_FDCWD, old, AT_FDCWD, file, 0);
}

int unlinkat(int dir, const char *file, int flags) {
  MAY_FAIL(flags & AT_REMOVEDIR ? "rmdir" : "unlink", 0, dir, file);
  return syscall(SYS_unlinkat, dir, file, flags);
}

int unlink(const char *file) { return unlinkat(AT_FDCWD, file, 0); }

int rmdir(const char *file) { return unlinkat(AT_FDCWD, file, AT_REMOVEDIR); }

int remove(const char *file) {
  int result = unlinkat(AT_FDCWD, file, 0);
  return result && errno == EISDIR ? rmdir(file) : result;
}
