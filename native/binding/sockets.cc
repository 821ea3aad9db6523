#include "binding/sockets.h"

#include <sys/socket.h>

#include <limits>

#include "binding/arguments.h"

namespace pagelane::binding {

Napi::Value RefuseMore(const Napi::CallbackInfo& info) {
  Arguments arguments(info, "refuse more");
  const auto fd = static_cast<int>(
      arguments.Integer(0, "fd", 0, std::numeric_limits<int>::max()));
  if (arguments.is_wrong()) {
    return info.Env().Undefined();
  }
  // Only a unix socket tells its peer: over TCP the peer would go on, and its bytes be lost.
  int domain = 0;
  socklen_t length = sizeof(domain);
  const bool is_unix =
      getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX;
  return Napi::Boolean::New(info.Env(), is_unix && shutdown(fd, SHUT_RD) == 0);
}

}  // namespace pagelane::binding
