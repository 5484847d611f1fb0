"""The door: who may talk to the gateway, and from where.

`target` reads a request's first line. `forwarded` reads a proxy's headers. `rules` makes a `Visitor` of both
and judges its Host and Origin. `refusals` has the answer for a visitor who may not come in, and its line in
the log. A request goes through them in `gateway.site.Site.respond`, in this order:

1. `Door.visitor(request, peer, local, tls)` → `Visitor`, or raises `Refused`.
2. `Door.host_refusal(visitor)`, and on upgrades `Door.origin_refusal(visitor, origins)`.
3. `Guard.check(token, address, scope)` gives the rights of the request's token, which `credentials` finds, or
   raises `Refused`. `token_watch`, `token_file`, `signed_tokens`, `minting` and `throttle` are its parts.

Two decisions that a reader may not expect:

- Beyond loopback and without `--allowed-hosts`, any numeric Host is taken, not only those of this machine's
  interfaces. DNS rebinding needs a name: a browser that sends a numeric Host was told to open that address.
  Behind NAT or in a container the address that a person opens is none of ours.
- The forwarded host and the Host header must both be allowed. A page on the proxy's own machine could
  otherwise forward a host of its choice.
"""
