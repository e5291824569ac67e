"""The third service, protected by Capstan as those in Rust are: cart.py CAPSTAN CART ORDERS, three addresses such as 127.0.0.1:4480.

    caller ─▶ Cart.Checkout: repo.list? ─▶ Orders.Place: repo.update? ─▶ Stock.Count: repo.list?

Each call carries the revision that decided the one before. The metadata `x-identity` says who calls: see lib.rs.
"""

import sys
from concurrent import futures

import grpc
from capstan import Caller, CarryRevision, Client, Protect
from shop.v1 import cart_pb2, cart_pb2_grpc, shop_pb2, shop_pb2_grpc

IDENTITY_KEY = "x-identity"


class Cart(cart_pb2_grpc.CartServicer):
    def __init__(self, orders):
        self.orders = shop_pb2_grpc.OrdersStub(grpc.intercept_channel(orders, CarryRevision()))

    def Checkout(self, request, context):
        who = [it for it in context.invocation_metadata() if it.key == IDENTITY_KEY]
        placed = []
        for name in request.names:
            order = shop_pb2.PlaceRequest(repo=f"{request.group}/{name}", count=request.count)
            try:
                if self.orders.Place(order, metadata=who, timeout=5).placed:
                    placed.append(name)
            except grpc.RpcError as error:
                # Whoever may not order is told so, and not that the cart is broken.
                context.abort(error.code(), error.details())
        return cart_pb2.CheckoutResponse(placed=placed)


def main():
    capstan, address, orders = sys.argv[1:]
    protect = Protect(
        Client(f"http://{capstan}"),
        [cart_pb2.DESCRIPTOR.services_by_name["Cart"]],
        lambda metadata: Caller(metadata[IDENTITY_KEY]) if IDENTITY_KEY in metadata else None,
    )
    server = grpc.server(futures.ThreadPoolExecutor(8), interceptors=[protect])
    cart_pb2_grpc.add_CartServicer_to_server(Cart(grpc.insecure_channel(orders)), server)
    port = server.add_insecure_port(address)
    server.start()
    print(f"grpc {address.rsplit(':', 1)[0]}:{port}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
