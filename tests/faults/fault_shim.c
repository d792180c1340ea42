/* Makes file operations of a process fail, or kills the process at one.

   fault_lab.py preloads it (LD_PRELOAD). It reads its orders from the
   environment, at the start and in fault_reset():

   FAULT_UNDER  the folder whose operations count, an absolute path
   FAULT_KIND   "write" (default): operations that change files; "read": reads
   FAULT_SINCE  count from the first operation of this name ("mkdir")
   FAULT_AT     the first operation to hit, from 1
   FAULT_COUNT  how many to hit from there; 0 for all
   FAULT_DO     "kill": SIGKILL before the operation; "torn": the same, after
                half of a write; else the errno with which it fails
   FAULT_LOG    a file that gets a line for each operation hit

   Operations are system calls of its own, so that none is counted twice. */

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
#include <unistd.h>

enum { TORN = -1 };
static char under[4096], since[16], action[16], log_path[4096];
static long first, count, done;
static int reads, counting;

static const char *order(const char *name) {
  const char *value = getenv(name);
  return value ? value : "";
}

__attribute__((constructor)) void fault_reset(void) {
  snprintf(under, sizeof under, "%s", order("FAULT_UNDER"));
  snprintf(since, sizeof since, "%s", order("FAULT_SINCE"));
  snprintf(action, sizeof action, "%s", order("FAULT_DO"));
  snprintf(log_path, sizeof log_path, "%s", order("FAULT_LOG"));
  first = atol(order("FAULT_AT"));
  count = atol(order("FAULT_COUNT"));
  reads = !strcmp(order("FAULT_KIND"), "read");
  counting = !*since;
  done = 0;
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

/* 0: do the operation. TORN: half of it, then die. Else: the errno. */
static int fault(const char *name, int is_read, int fd, const char *file) {
  if (!*under || !first || is_read != reads) return 0;
  char path[4096 + 512], line[sizeof path + 64];
  int saved = errno;
  resolve(fd, file, path, sizeof path);
  errno = saved;
  size_t length = strlen(under);
  if (strncmp(path, under, length) || (path[length] && path[length] != '/'))
    return 0;
  if (!counting && strcmp(name, since)) return 0;
  counting = 1;
  long number = __atomic_add_fetch(&done, 1, __ATOMIC_SEQ_CST);
  if (number < first || (count && number >= first + count)) return 0;
  int code = atoi(action);
  /* A full disk still frees what it has. */
  if (code == ENOSPC && (!strcmp(name, "unlink") || !strcmp(name, "rmdir")))
    return 0;
  int flags = O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC;
  int log = syscall(SYS_openat, AT_FDCWD, log_path, flags, 0600);
  int n = snprintf(line, sizeof line, "%ld %s %s\n", number, name, path);
  syscall(SYS_write, log, line, n);
  syscall(SYS_close, log);
  errno = saved;
  if (code) return code;
  if (!strcmp(action, "torn") && !strcmp(name, "write")) return TORN;
  die();
  return 0;
}

#define MAY_FAIL(name, is_read, fd, file)            \
  do {                                               \
    int error = fault(name, is_read, fd, file);      \
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

#define ALIAS(name) __attribute__((alias(#name)))

int openat(int dir, const char *file, int flags, ...) {
  va_list args;
  va_start(args, flags);
  mode_t mode = va_arg(args, mode_t);
  va_end(args);
  int is_read = (flags & O_ACCMODE) == O_RDONLY && !(flags & O_CREAT);
  if (!(flags & O_DIRECTORY)) MAY_FAIL("open", is_read, dir, file);
  return syscall(SYS_openat, dir, file, flags, mode);
}
int openat64(int dir, const char *file, int flags, ...) ALIAS(openat);

int open(const char *file, int flags, ...) {
  va_list args;
  va_start(args, flags);
  mode_t mode = va_arg(args, mode_t);
  va_end(args);
  return openat(AT_FDCWD, file, flags, mode);
}
int open64(const char *file, int flags, ...) ALIAS(open);

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
ssize_t pread64(int fd, void *to, size_t size, off_t at) ALIAS(pread);

ssize_t write(int fd, const void *data, size_t size) {
  MAY_TEAR(fd, syscall(SYS_write, fd, data, size / 2));
  return syscall(SYS_write, fd, data, size);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
  MAY_TEAR(fd, syscall(SYS_pwrite64, fd, data, size / 2, at));
  return syscall(SYS_pwrite64, fd, data, size, at);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off_t at) ALIAS(pwrite);

ssize_t writev(int fd, const struct iovec *parts, int num) {
  MAY_TEAR(fd, if (num) syscall(SYS_write, fd, parts->iov_base,
                                parts->iov_len / 2));
  return syscall(SYS_writev, fd, parts, num);
}

int ftruncate(int fd, off_t size) {
  MAY_FAIL("truncate", 0, fd, NULL);
  return syscall(SYS_ftruncate, fd, size);
}
int ftruncate64(int fd, off_t size) ALIAS(ftruncate);

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
