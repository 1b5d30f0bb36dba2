/* To be preloaded: every OpenSSL context writes its sessions' secrets to $SSLKEYLOGFILE, a line each. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef void (*teller)(const void *session, const char *line);

static void tell(const void *session, const char *line)
{
    const char *path = getenv("SSLKEYLOGFILE");
    char text[1024];
    size_t size = strlen(line);
    int file;

    (void)session;
    if (!path || size + 1 >= sizeof text)
        return;
    memcpy(text, line, size);
    text[size] = '\n';
    file = open(path, O_WRONLY | O_APPEND | O_CREAT, 0640);
    if (file < 0)
        return;
    if (write(file, text, size + 1) < 0)
        _exit(1);
    close(file);
}

void *SSL_CTX_new(const void *method)
{
    void *(*make)(const void *) = dlsym(RTLD_NEXT, "SSL_CTX_new");
    void (*set)(void *, teller);
    void *context, *library;

    if (!make) { /* the library was opened by a module of the program */
        library = dlopen("libssl.so.3", RTLD_LAZY);
        make = dlsym(library, "SSL_CTX_new");
    }
    library = dlopen("libssl.so.3", RTLD_LAZY);
    set = dlsym(library, "SSL_CTX_set_keylog_callback");
    context = make(method);
    if (context && set)
        set(context, tell);
    return context;
}
